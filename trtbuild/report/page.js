(() => {
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  const told = (node) => {
    const shape = node instanceof Element ? node.closest("rect, circle") : null;
    if (!shape || !shape.closest("svg")) return null;
    const title = shape.querySelector("title");
    if (title) { shape.dataset.tip = title.textContent; shape.setAttribute("aria-label", title.textContent); title.remove(); }
    return shape.dataset.tip ? shape : null;
  };
  const show = (shape, x, y) => {
    tip.textContent = shape.dataset.tip; tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 14) : y + 18}px`;
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const shape = told(event.target);
    if (shape) show(shape, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("focusin", (event) => {
    const shape = told(event.target);
    if (shape) { const box = shape.getBoundingClientRect(); show(shape, box.left, box.bottom); }
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(code); button.textContent = "Selected"; }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details.prints")) one.open = true; });
})();
