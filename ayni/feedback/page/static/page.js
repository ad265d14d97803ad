// Comfort only: everything here also works without it.
"use strict";

const find = (selector) => document.querySelector(selector);

// A live region speaks when it changes, not when it loads.
const status = find("#status");
const say = (text) => {
  status.textContent = "";
  setTimeout(() => { status.textContent = text; }, 60);
};
if (status.textContent.trim()) say(status.textContent);

const problem = find("#problem");
if (problem) problem.focus();

// The button that was pressed is disabled a moment later: its name must still travel with the form.
for (const form of document.forms) {
  form.addEventListener("submit", () => {
    setTimeout(() => {
      form.setAttribute("aria-busy", "true");
      for (const button of form.querySelectorAll("button")) button.disabled = true;
    }, 0);
    if (form.dataset.slow) say(form.dataset.slow);
  });
}
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.forms) {
    form.removeAttribute("aria-busy");
    for (const button of form.querySelectorAll("button")) button.disabled = false;
  }
});

for (const field of document.querySelectorAll("input[readonly]")) {
  field.addEventListener("focus", () => field.select());
}

const judge = find("#judge");
const undo = find("#undo");
const guidelines = find(".guidelines");

const save = () => judge.requestSubmit(judge.querySelector("button[value=judged]"));

const mark = (side) => {
  const radios = [...judge.querySelectorAll(`input[name=safety_${side}]`)];
  if (!radios.length) return;
  const now = radios.findIndex((radio) => radio.checked);
  const next = radios[(now + 1) % radios.length];
  next.checked = true;
  say(`Answer ${side.toUpperCase()}: ${next.value}`);
};

const shortcuts = find("#shortcuts");

addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.altKey || event.metaKey || event.isComposing || event.repeat) return;
  const writing = at.matches && at.matches("textarea, input:not([type=radio])");
  if (event.key === "Enter" && event.ctrlKey && writing) {
    event.preventDefault();
    if (judge) save();
    else at.form.requestSubmit();
    return;
  }
  if (event.ctrlKey || writing || (shortcuts && !shortcuts.checked)) return;
  if (event.key === "?" && guidelines) {
    event.preventDefault();
    guidelines.open = !guidelines.open;
    guidelines.querySelector("summary").focus();
  } else if (event.key === "u" && undo) {
    event.preventDefault();
    undo.requestSubmit();
  } else if (judge && /^[1-8]$/.test(event.key)) {
    event.preventDefault();
    const radio = judge.querySelector(`input[name=choice][value="${event.key}"]`);
    radio.checked = true;
    radio.focus();
  } else if (judge && (event.key === "a" || event.key === "b")) {
    event.preventDefault();
    mark(event.key);
  } else if (judge && event.key === "Enter" && !at.closest("a, button, summary")) {
    event.preventDefault();
    save();
  }
});

// Single keys can be in the way of speech input and screen readers, so they can be turned off, for good.
// Last, because a browser that keeps nothing refuses localStorage.
if (shortcuts) {
  shortcuts.closest("label").hidden = false;
  shortcuts.checked = localStorage.getItem("keys") !== "off";
  shortcuts.addEventListener("change", () => localStorage.setItem("keys", shortcuts.checked ? "on" : "off"));
}
