// Shows how a start goes, as the hub tells it, and goes on to the server when it is ready.
const card = document.querySelector("#pending");
const bar = document.querySelector("#progress");
const message = document.querySelector("#progress-message");
const LOOK_AGAIN_MS = 2000;

function lookAgain() {
  // The same address answers by what is so then: the server, the failure, or this page once more.
  window.location.reload();
}

function follow(stream) {
  const events = new EventSource(stream);
  events.onmessage = (event) => {
    const step = JSON.parse(event.data);
    if (step.progress !== undefined) {
      bar.value = step.progress;
    }
    if (step.message) {
      message.textContent = step.message;
    }
    if (step.ready || step.failed) {
      events.close();
      lookAgain();
    }
  };
  events.onerror = () => {
    events.close();
    window.setTimeout(lookAgain, LOOK_AGAIN_MS);
  };
}

if (card.dataset.stream) {
  follow(card.dataset.stream);
} else if (card.dataset.state === "stopping") {
  window.setTimeout(lookAgain, LOOK_AGAIN_MS);
}
