// GraphiQL before this server: requests as GraphQL over HTTP, subscriptions as server-sent events.
// Who you are is shown by the client certificate, or by an Authorization header in the page's "Headers" tab.
"use strict";

function isSubscription(document, operationName) {
  const operations = (document ? document.definitions : []).filter((node) => node.kind === "OperationDefinition");
  const named = operations.filter((node) => !operationName || (node.name && node.name.value === operationName));
  return named.length > 0 && named[0].operation === "subscription";
}

function post(parameters, headers, accept) {
  return fetch("/graphql", {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json", Accept: accept },
    body: JSON.stringify(parameters),
  });
}

async function* results(parameters, headers) {
  const answer = await post(parameters, headers, "text/event-stream");
  if (!answer.ok) {
    yield await answer.json();
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = (text + part.value).split("\n\n");
      text = events.pop();
      for (const event of events.filter((lines) => lines.startsWith("event: next\n"))) {
        yield JSON.parse(event.slice("event: next\ndata: ".length));
      }
    }
  } finally {
    await reader.cancel();
  }
}

async function fetcher(parameters, options) {
  const headers = (options && options.headers) || {};
  if (isSubscription(options && options.documentAST, parameters.operationName)) {
    return results(parameters, headers);
  }
  return (await post(parameters, headers, "application/graphql-response+json")).json();
}

ReactDOM.createRoot(document.getElementById("page")).render(
  React.createElement(GraphiQL, { fetcher, defaultEditorToolsVisibility: "headers", shouldPersistHeaders: false }),
);
