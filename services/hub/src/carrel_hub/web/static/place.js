// What stands behind the # of an address stays in the browser, so a sign-in would lose it. Redirects
// keep it, if whatever leads to them has it.
for (const form of document.querySelectorAll("form[data-keep-place]")) {
  form.action += window.location.hash;
}
for (const link of document.querySelectorAll("a[data-keep-place]")) {
  link.href += window.location.hash;
}
