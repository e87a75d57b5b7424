"""A Flask application as people write them: its session is a cookie at `Path=/`."""

import sys

from flask import Flask, Response, jsonify, redirect, request, session

app = Flask(__name__)
app.secret_key = sys.argv[2]


@app.get("/")
def home() -> str:
    if "user" not in session:
        return (
            '<form method="post" action="login"><input name="user"><button>Sign in</button></form>'
        )
    session["visits"] = session.get("visits", 0) + 1
    return f'<p id="who">{session["user"]}, visit {session["visits"]}</p>'


@app.post("/login")
def login() -> Response:
    session["user"] = request.form["user"]
    return redirect("./")


@app.get("/cookies")
def cookies() -> Response:
    """What of the browser's cookies arrives here, read by Werkzeug and as it was sent."""
    return jsonify(read=request.cookies, raw=request.headers.get("Cookie", ""))


# RStudio Server's way: who you are in one cookie, a token against forged requests in another, both
# at the root of what it takes for its own host, and the token asked for in a header.
@app.get("/rstudio/auth-sign-in")
def rstudio_sign_in() -> Response:
    reply = redirect("./")
    reply.set_cookie("user-id", "rstudio|forever|signature", path="/", httponly=True)
    reply.set_cookie("user-list-id", "list", path="/", httponly=True)
    reply.set_cookie("csrf-token", "0f0f-token", path="/")
    return reply


@app.post("/rstudio/rpc/client_init")
def rstudio_rpc() -> tuple[Response, int]:
    known = request.cookies.get("user-id", "").startswith("rstudio|")
    checked = request.headers.get("X-CSRF-Token", "?") == request.cookies.get("csrf-token")
    return jsonify(ok=known and checked), 200 if known and checked else 401


@app.get("/rstudio/")
def rstudio_home() -> str:
    return '<p id="workbench">RStudio</p>'


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]))
