// Shows /openapi.json for people. Everything is set as text, never as markup.
"use strict";

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function typeName(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeName).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return "list of " + typeName(schema.items);
  const range = "minimum" in schema ? ` ${schema.minimum} to ${schema.maximum}` : "";
  return (schema.format || schema.type || "any") + range;
}

function table(headings, rows) {
  const head = element("tr", "", ...headings.map((text) => element("th", text)));
  const body = rows.map((row) => element("tr", "", ...row.map((cell) =>
    cell instanceof Node ? element("td", "", cell) : element("td", cell))));
  return element("table", "", head, ...body);
}

function isEndless(operation) {
  const content = operation.responses["200"]?.content || {};
  return operation.parameters?.some((p) => p.name === "from") && !content["application/json"];
}

// A form that sends the request and shows the answer.
function tryForm(path, parameters) {
  const inputs = new Map();
  const rows = parameters.filter((p) => p.in !== "header").map((parameter) => {
    const input = element("input");
    input.setAttribute("aria-label", parameter.name);
    inputs.set(parameter, input);
    const what = parameter.description || parameter.schema.description || "";
    return [parameter.name, typeName(parameter.schema), what, input];
  });
  const button = element("button", "Send");
  const answer = element("pre");
  answer.hidden = true;
  const form = element("form", "");
  if (rows.length) form.append(table(["parameter", "type", "meaning", "value"], rows));
  form.append(button, answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    let target = path;
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") {
        target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      } else if (input.value) {
        query.set(parameter.name, input.value);
      }
    }
    if (query.size) target += `?${query}`;
    answer.hidden = false;
    try {
      const response = await fetch(target);
      const isJson = (response.headers.get("content-type") || "").includes("json");
      const shown = isJson
        ? JSON.stringify(await response.json(), null, 2)
        : `${(await response.arrayBuffer()).byteLength} bytes`;
      answer.textContent = `GET ${target}\n${response.status} ${response.statusText}\n\n${shown}`;
    } catch (error) {
      answer.textContent = `GET ${target}\n${error.message}`;
    }
  });
  return form;
}

function showOperation(method, path, operation) {
  const title = element("summary", "");
  const verb = element("span", method.toUpperCase());
  verb.className = "method";
  title.append(verb, element("code", path), ` ${operation.summary || ""}`);
  const shown = element("details", "", title, element("p", operation.description));
  for (const [type] of Object.entries(operation.requestBody?.content || {})) {
    shown.append(element("p", `Request body: ${type}`));
  }
  for (const [status, response] of Object.entries(operation.responses)) {
    for (const [type, media] of Object.entries(response.content || {})) {
      const schema = type === "application/json" ? typeName(media.schema) : "";
      shown.append(element("p", `Answer ${status}: ${type} ${schema}`));
    }
  }
  if (method === "get" && !isEndless(operation)) {
    shown.append(tryForm(path, operation.parameters || []));
  }
  return shown;
}

async function main() {
  const description = await (await fetch("/openapi.json")).json();
  document.getElementById("title").textContent =
    `${description.info.title}: HTTP API, version ${description.info.version}`;
  document.getElementById("description").textContent = description.info.description;
  const byTag = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] || "other";
      if (!byTag.has(tag)) byTag.set(tag, element("section", "", element("h2", tag)));
      byTag.get(tag).append(showOperation(method, path, operation));
    }
  }
  document.getElementById("operations").replaceChildren(...byTag.values());
  const schemas = document.getElementById("schemas");
  for (const [name, schema] of Object.entries(description.components?.schemas || {})) {
    const rows = Object.entries(schema.properties || {}).map(([key, value]) =>
      [key, typeName(value), value.description || ""]);
    schemas.append(element("details", "", element("summary", name),
      element("p", schema.description), table(["key", "type", "meaning"], rows)));
  }
}

main().catch((error) => {
  document.getElementById("operations").textContent =
    `/openapi.json cannot be shown: ${error.message}`;
});
