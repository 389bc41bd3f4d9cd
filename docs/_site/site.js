// A table that may scroll sideways is reached from the keyboard, and says what it is.
window.addEventListener("load", () => {
  for (const one of document.querySelectorAll(".md-typeset__scrollwrap")) {
    const heading = one.querySelector("th");
    one.tabIndex = 0;
    one.setAttribute("role", "group");
    one.setAttribute("aria-label", `Table: ${heading ? heading.textContent : ""}`);
  }
});
