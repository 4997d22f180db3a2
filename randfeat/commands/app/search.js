// Pressing a result searches with it; the keyboard's focus stays among the results.
let pressed = false;
element.addEventListener("click", (event) => {
  const hit = event.target.closest("button[data-id]");
  if (!hit) return;
  pressed = true;
  trigger("select", { id: Number(hit.dataset.id) });
});
watch("value", () => {
  if (pressed) element.querySelector("button[data-id]")?.focus({ preventScroll: true });
  pressed = false;
});
