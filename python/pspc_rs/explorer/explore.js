// The page of the explorer: asks the server for the views of what is chosen, and shows them.

const form = document.querySelector("#controls");
const status = document.querySelector("[role=status]");
const sigmas = JSON.parse(form.dataset.sigmas);
const size = { y: Number(form.dataset.height), x: Number(form.dataset.width) };
const fields = form.elements;
const panels = [...document.querySelectorAll(".panel")];
const waiting = new Map(); // what is being asked for, by the element that will show it

// What is chosen

const isRun = () => fields.start.value === "run";
const isChecked = (name) => Boolean(fields[name]?.checked);

function question() {
  const asked = { start: fields.start.value, seed: fields.seed.value };
  if (isRun()) return { ...asked, step: fields.level.value, runner: fields.denoiser.value };
  return { ...asked, image: fields.image.value, sigma: fields.sigma.value, leave_out: Number(isChecked("leave_out")) };
}

const pixel = () => ({ y: fields.y.value, x: fields.x.value });
const nameOf = (part) => (part === "a" ? fields.denoiser.value : fields.other.value);
const sigmaOf = (level) => Number(sigmas[level].toPrecision(4));
const levelOf = (sigma) => {
  const apart = sigmas.map((one) => Math.abs(Math.log(one / Number(sigma))));
  return apart.indexOf(Math.min(...apart));
};
const titleOf = (name) => [...fields.denoiser.options].find((one) => one.value === name)?.text ?? "";

// Asking

async function ask(view, asked, signal, report) {
  for (;;) {
    const response = await fetch(`${view}?${new URLSearchParams(asked)}`, { signal });
    const answer = await response.json();
    if (response.status === 200) return answer;
    if (response.status !== 202) throw new Error(answer.error);
    report(answer);
    await new Promise((resolve) => setTimeout(resolve, 200)); // a browser has few connections, which others need, too
  }
}

function reportOf(view) {
  return ({ done, total, what }) => {
    status.textContent = `${what || view} …${total ? ` ${Math.floor((100 * done) / total)} %` : ""}`;
  };
}

// Fills an element with a view; what it was asked for before is given up.
async function fill(element, view, asked) {
  waiting.get(element)?.abort();
  const mine = new AbortController();
  waiting.set(element, mine);
  element.setAttribute("aria-busy", "true");
  try {
    const answer = await ask(view, asked, mine.signal, reportOf(view));
    element.innerHTML = answer.html;
    return answer;
  } catch (error) {
    if (mine.signal.aborted) return null;
    const line = document.createElement("p");
    line.className = "failed";
    const isGone = error instanceof TypeError; // what fetch throws where nobody answers
    line.textContent = isGone ? "The explorer does not answer; it may have been ended." : error.message;
    element.replaceChildren(line);
    return null;
  } finally {
    if (waiting.get(element) === mine) {
      waiting.delete(element);
      element.removeAttribute("aria-busy");
      mark();
    }
    if (waiting.size === 0) status.textContent = "";
  }
}

function empty(element) {
  waiting.get(element)?.abort();
  waiting.delete(element);
  element.removeAttribute("aria-busy");
  element.replaceChildren();
}

const slot = (home, view) => home.querySelector(`[data-view=${view}]`);

// Showing

function showPatches(panel) {
  const name = nameOf(panel.dataset.part);
  if (!name) return;
  const asked = { ...question(), ...pixel(), denoiser: name, part: panel.dataset.part };
  fill(slot(panel, "patches"), "patches", asked);
  panel.querySelector("[data-page]").href = `explain?${new URLSearchParams({ ...asked, as: "page" })}`;
}

function showPanel(panel) {
  const part = panel.dataset.part;
  const name = nameOf(part);
  panel.hidden = !name;
  if (!name) return panel.querySelectorAll("[data-view]").forEach(empty);
  panel.querySelector("h2").textContent = titleOf(name);
  fill(slot(panel, "denoised"), "denoised", { ...question(), denoiser: name, part }).then((found) => {
    if (found) panel.querySelector("[data-posterior]").hidden = !found.has_posterior;
  });
  showPatches(panel);
}

function showSlow(panel) {
  const part = panel.dataset.part;
  const name = nameOf(part);
  for (const view of ["variance", "shares"]) {
    if (name && isChecked(view)) fill(slot(panel, view), view, { ...question(), denoiser: name, part });
    else empty(slot(panel, view));
  }
}

function showAll() {
  if (!form.checkValidity()) return;
  fields.sigma.disabled = isRun();
  fields.level.setAttribute("aria-valuetext", `sigma ${Number(fields.sigma.value)}`);
  remember();
  document.querySelector("[data-when=run]").hidden = !isRun();
  document.querySelector("[data-when=other]").hidden = !fields.other.value;
  press("[data-image]", (one) => one.dataset.image === fields.image.value && !isRun());
  showRun();
  fill(slot(document, "noisy"), "noisy", question());
  panels.forEach(showPanel);
  const difference = slot(document, "difference");
  if (fields.other.value) {
    fill(difference, "difference", { ...question(), denoiser: fields.denoiser.value, other: fields.other.value });
  } else empty(difference);
  panels.forEach(showSlow); // last, as the browser asks in this order
}

function showRun() {
  const run = slot(document, "run");
  const asked = { runner: fields.denoiser.value, seed: fields.seed.value };
  const words = JSON.stringify(asked);
  if (!isRun()) empty(run);
  else if (run.dataset.asked !== words || !run.firstChild) {
    run.dataset.asked = words;
    fill(run, "run", asked);
  }
}

function showImages(first) {
  const last = Number(fields.image.max);
  return fill(slot(document, "images"), "images", { first: Math.min(Math.max(first, 0), last) }).then((found) => {
    if (!found) return;
    slot(document, "images").dataset.first = found.first;
    form.querySelector("[data-turn='-1']").disabled = found.first === 0;
    form.querySelector("[data-turn='1']").disabled = found.first + found.step >= found.num;
  });
}

function press(buttons, isPressed) {
  document.querySelectorAll(buttons).forEach((one) => one.setAttribute("aria-pressed", isPressed(one)));
}

// Marks the pixel on every picture, and what is chosen among the buttons.
function mark() {
  press("[data-image]", (one) => one.dataset.image === fields.image.value && !isRun());
  press("[data-step]", (one) => one.dataset.step === fields.level.value);
  showStep();
  document.querySelectorAll(".pixel").forEach((one) => one.remove());
  for (const picture of document.querySelectorAll("[data-pixels] svg.picture")) {
    for (const kind of ["pixel dark", "pixel"]) {
      const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const places = { class: kind, ...pixel(), width: 1, height: 1, "vector-effect": "non-scaling-stroke" };
      Object.entries(places).forEach(([name, value]) => square.setAttribute(name, value));
      picture.append(square);
    }
  }
}

// Scrolls the strip of a sampling run to the chosen step, and nothing else.
function showStep() {
  const step = document.querySelector("[data-step][aria-pressed=true]");
  if (!step) return;
  const strip = step.parentElement;
  const [here, there] = [step.getBoundingClientRect(), strip.getBoundingClientRect()];
  if (here.left < there.left) strip.scrollLeft -= there.left - here.left;
  if (here.right > there.right) strip.scrollLeft += here.right - there.right;
}

// The address says what is shown, so that it can be kept and passed on.

const PLAIN = ["image", "sigma", "level", "seed", "denoiser", "other", "y", "x"];
const SWITCHES = ["leave_out", "variance", "shares"];

function remember() {
  const kept = Object.fromEntries(PLAIN.map((name) => [name, fields[name].value]));
  for (const name of SWITCHES) if (fields[name]) kept[name] = Number(fields[name].checked);
  history.replaceState(null, "", `?${new URLSearchParams({ start: fields.start.value, ...kept })}`);
}

function recall() {
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (SWITCHES.includes(name) && fields[name]) fields[name].checked = value === "1";
    else if (name === "start" && ["image", "run"].includes(value)) fields.start.value = value;
    else if (PLAIN.includes(name)) setIfValid(fields[name], value);
  }
  if (isRun()) fields.sigma.value = sigmaOf(fields.level.value);
  else fields.level.value = levelOf(fields.sigma.value);
}

function setIfValid(field, value) {
  const before = field.value;
  field.value = value;
  if (field.value === "" ? field.required : !field.checkValidity()) field.value = before;
  if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = before;
}

// What the reader does

let later = 0;

function soon() {
  clearTimeout(later);
  later = setTimeout(showAll, 120); // while a slider moves, one view of where it stays
}

function choosePixel(y, x) {
  fields.y.value = y;
  fields.x.value = x;
  if (!form.checkValidity()) return;
  remember();
  mark();
  panels.forEach(showPatches);
}

form.addEventListener("input", ({ target }) => {
  if (["y", "x"].includes(target.name)) return choosePixel(fields.y.value, fields.x.value);
  if (target.name === "level" || (target.name === "start" && isRun())) {
    fields.sigma.value = sigmaOf(fields.level.value);
  } else if (target.name === "sigma") {
    fields.level.value = levelOf(target.value);
  }
  soon();
});

form.addEventListener("submit", (event) => event.preventDefault());

form.addEventListener("click", ({ target }) => {
  const image = target.closest("[data-image]");
  const turn = target.closest("[data-turn]");
  if (image) {
    fields.image.value = image.dataset.image;
    fields.start.value = "image";
    showAll();
  } else if (turn) {
    const step = slot(document, "images").querySelectorAll("button").length || 1;
    showImages(Number(slot(document, "images").dataset.first) + Number(turn.dataset.turn) * Math.max(step, 12));
  }
});

document.querySelector(".views").addEventListener("click", ({ target, clientX, clientY }) => {
  const step = target.closest("[data-step]");
  const picture = target.closest("[data-pixels] svg.picture");
  if (step) {
    fields.level.value = step.dataset.step;
    fields.sigma.value = sigmaOf(step.dataset.step);
    showAll();
  } else if (picture) {
    const { left, top, width, height } = picture.getBoundingClientRect();
    const at = (share, sides) => Math.min(Math.max(Math.floor(share * sides), 0), sides - 1);
    choosePixel(at((clientY - top) / height, size.y), at((clientX - left) / width, size.x));
  }
});

recall();
showAll();
showImages(Number(fields.image.value) - (Number(fields.image.value) % 12));
