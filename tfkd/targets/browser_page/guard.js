// Says that a browser is too old to read the script of the page, which is written in the JavaScript of 2020.
"use strict";

window.addEventListener("error", function () {
  if (!document.body.hasAttribute("data-ready")) document.getElementById("old").hidden = false;
});
