// The canvas of a Sketch. A stroke is drawn here, while the mouse moves; the kernel hears of it when it has ended.
//
// given: strokes shown until the first of the learner's own. strokes: those, null at first, [] once cleared. A stroke is
// a list of points [x, y], both from -1 to 1, y upwards. paper: the empty picture, an svg with one path.
export default {
  render({ model, el }) {
    el.innerHTML = `<div class="ddpm-tools"><button type="button" class="jupyter-widgets jupyter-button">clear</button>
      <button type="button" class="jupyter-widgets jupyter-button">undo</button></div>
      <div class="ddpm-paper" role="img" aria-label="canvas to draw on">${model.get("paper")}<span>draw something</span></div>`;
    const find = (what) => el.querySelector(what), [clear, undo] = el.querySelectorAll("button");
    const paper = find(".ddpm-paper"), ink = find("path"), hint = find("span");
    const drawn = () => model.get("strokes"), past = [];  // what undo goes back through
    let stroke = null;  // the one being drawn

    const paint = () => {
      const strokes = stroke ? [...(drawn() ?? []), stroke] : drawn() ?? model.get("given");
      // Each starts with a line of no length: with round ends, that makes a dot of a single point.
      ink.setAttribute("d", strokes.map((points) => `M${points[0]}L${points.join("L")}`).join(""));
      hint.hidden = strokes.length > 0;
      clear.disabled = !strokes.length;
      undo.disabled = !past.length;
    };
    const put = (strokes) => { model.set("strokes", strokes); model.save_changes(); };
    const change = (strokes) => { past.push(drawn()); put(strokes); };
    const inside = (share) => +Math.min(Math.max(2 * share - 1, -1), 1).toFixed(4);
    const at = (event) => {
      const box = paper.getBoundingClientRect();
      return [inside((event.clientX - box.left) / box.width), inside((box.bottom - event.clientY) / box.height)];
    };

    paper.onpointerdown = (event) => {
      if (event.button || !event.isPrimary) return;
      paper.setPointerCapture(event.pointerId);
      stroke = [at(event)];
      paint();
    };
    paper.onpointermove = (event) => {
      if (!stroke || !event.isPrimary) return;
      const all = event.getCoalescedEvents?.() ?? [];  // a browser reports less often than a fast hand moves
      stroke.push(...(all.length ? all : [event]).map(at));
      paint();
    };
    paper.onlostpointercapture = (event) => {  // however it ended: lifted, cancelled, taken away
      if (!stroke || !event.isPrimary) return;
      const strokes = [...(drawn() ?? []), stroke];
      stroke = null;
      change(strokes);
    };
    clear.onclick = () => change([]);
    undo.onclick = () => put(past.pop());
    model.on("change:strokes", paint);
    paint();
    return () => model.off("change:strokes", paint);
  },
};
