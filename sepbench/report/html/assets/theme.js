// Light or dark: what the reader chose, else what the system says. Loaded before the page is drawn.
(function () {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripts");
  function chosen() {
    try { return localStorage.getItem("sepbench-theme"); } catch (error) { return null; }
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  function dark() {
    const choice = chosen();
    return choice ? choice === "dark" : system.matches;
  }
  function apply() {
    root.dataset.theme = dark() ? "dark" : "light";
    const button = document.querySelector("[data-theme-switch]");
    if (button) {
      button.setAttribute("aria-pressed", String(dark()));
    }
    document.dispatchEvent(new CustomEvent("sepbench:theme"));
  }
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", function () {
    apply();
    document.querySelector("[data-theme-switch]").addEventListener("click", function () {
      try { localStorage.setItem("sepbench-theme", dark() ? "light" : "dark"); } catch (error) { root.dataset.theme = "light"; }
      apply();
    });
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.addEventListener("click", function () { copy(button); });
    }
  });

  // The clipboard's own interface is not there on pages from disk in every browser: then the text is selected and copied as a reader would.
  function copy(button) {
    const text = button.parentElement.querySelector("code");
    function told(word) {
      button.textContent = word;
      setTimeout(function () { button.textContent = "Copy"; }, 1500);
    }
    function selected() {
      const range = document.createRange();
      range.selectNodeContents(text);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      told(document.execCommand("copy") ? "Copied" : "Selected");
    }
    if (navigator.clipboard && window.isSecureContext) {
      navigator.clipboard.writeText(text.textContent).then(function () { told("Copied"); }, selected);
    } else {
      selected();
    }
  }
})();
