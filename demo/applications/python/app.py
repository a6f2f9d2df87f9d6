"""A web page that says hello: `PORT` chooses the port, 8080 otherwise."""

import os

from bottle import Bottle, run

app = Bottle()


@app.get("/")
def hello():
    return "hello from coracle\n"


@app.get("/health")
def health():
    return {"status": "ok"}


if __name__ == "__main__":
    run(app, host="0.0.0.0", port=int(os.environ.get("PORT", "8080")))
