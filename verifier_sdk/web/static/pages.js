// Shows times in the reader's zone (the server writes them in UTC), and keeps lists in order that
// htmx puts in place.
"use strict";

(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

  const formats = new Map();
  for (const [form, parts] of [
    ["minute", {}],
    ["second", { second: "2-digit" }],
    ["millisecond", { second: "2-digit", fractionalSecondDigits: 3 }],
  ]) {
    formats.set(form, new Intl.DateTimeFormat("en-GB", {
      year: "numeric", month: "2-digit", day: "2-digit",
      hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short", ...parts,
    }));
  }

  const written = (format, at) => {
    const part = {};
    for (const { type, value } of format.formatToParts(at)) part[type] = value;
    let text = `${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute}`;
    if (part.second !== undefined) text += `:${part.second}`;
    if (part.fractionalSecond !== undefined) text += `.${part.fractionalSecond}`;
    return `${text} ${part.timeZoneName}`;
  };

  const show = (root) => {
    for (const element of root.querySelectorAll("time[data-form]")) {
      const at = new Date(element.dateTime);
      const format = formats.get(element.dataset.form);
      if (element.title || Number.isNaN(at.getTime()) || format === undefined) continue;
      element.title = element.textContent;
      element.textContent = written(format, at);
    }
  };

  show(document);
  const name = document.getElementById("zone");
  if (name !== null && zone) name.textContent = `your zone, ${zone.replaceAll("_", " ")}`;
  // What htmx has put in place of what was there.
  document.addEventListener("htmx:afterSettle", () => show(document));

  // Addresses are passed on: they hold what was chosen, and nothing else.
  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (detail.verb !== "get") return;
    for (const [name, value] of [...detail.formData]) {
      if (value === "") detail.formData.delete(name);
    }
  });

  // The page that says why is loaded as a page.
  const load = ({ detail }) => location.assign(detail.pathInfo.finalRequestPath);
  document.addEventListener("htmx:responseError", load);
  document.addEventListener("htmx:sendError", load);
})();
