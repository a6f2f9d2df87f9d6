// A web page that says hello: `PORT` chooses the port, 8080 otherwise.
"use strict";
const polka = require("polka");

const port = Number(process.env.PORT ?? 8080);
polka()
  .get("/", (request, response) => response.end("hello from node, started by coracle\n"))
  .get("/health", (request, response) => response.end(JSON.stringify({ status: "ok" })))
  .listen(port, () => console.log(`listening on port ${port}`));
