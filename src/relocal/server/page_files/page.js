"use strict";

const part = (id) => document.getElementById(id);
const headers = () => {
  const key = sessionStorage.getItem("key");
  return key === null ? {} : { "X-API-Key": key };
};
let asked = 0; // answers that come after a newer question are not shown

async function fetched(address, options = {}) {
  const answer = await fetch(address, { ...options, headers: { ...headers(), ...options.headers } });
  if (answer.ok) return answer;
  if (answer.status === 401) {
    part("key-form").hidden = false;
    throw new Error("this server wants its API key.");
  }
  const told = await answer.json().catch(() => ({}));
  throw new Error(typeof told.detail === "string" ? told.detail : `the server answered ${answer.status}.`);
}

async function start() {
  const { scenes } = await (await fetched("/v1/scenes")).json();
  part("scenes").replaceChildren(...scenes.map((name) => new Option(name, name)));
  part("choice").hidden = scenes.length < 2;
  part("key-form").hidden = true;
  tell("");
  await show();
}

async function show(said) {
  const scene = part("scenes").value, mine = asked;
  part("scene-name").textContent = scene;
  const query = new URLSearchParams({ scene });
  if (said) {
    said.position.forEach((value) => query.append("position", value));
    said.quaternion.forEach((value) => query.append("quaternion", value));
    if (said.sigma_m !== null) query.append("sigma", said.sigma_m);
  }
  try {
    const recording = await (await fetched(`/v1/scene/view?${query}`)).blob();
    if (mine !== asked) return;
    part("no-viewer").hidden = true;
    const view = part("viewer"), old = view.dataset.recording;
    view.dataset.recording = URL.createObjectURL(recording);
    view.src = `/viewer/?darkMode&playbackPath=${encodeURIComponent(view.dataset.recording)}`;
    view.hidden = false;
    if (old) URL.revokeObjectURL(old);
  } catch (error) {
    if (mine !== asked) return;
    part("viewer").hidden = true; // what it shows belongs to another photo
    part("no-viewer").textContent = `No picture of the place: ${error.message}`;
    part("no-viewer").hidden = false;
  }
}

function tell(text) {
  part("status").textContent = text;
}

async function ask(photo) {
  const mine = ++asked;
  part("answer").hidden = true;
  if (part("photo").src) URL.revokeObjectURL(part("photo").src);
  part("photo").src = URL.createObjectURL(photo);
  part("photo").hidden = false;
  tell("Looking …");
  try {
    const query = new URLSearchParams({ scene: part("scenes").value });
    const options = { method: "POST", body: photo, headers: { "Content-Type": "application/octet-stream" } };
    const said = await (await fetched(`/v1/localize?${query}`, options)).json();
    if (mine !== asked) return;
    if (!said.located) {
      tell("It cannot tell where this photo was taken.");
      await show();
      return;
    }
    describe(said);
    tell("Found.");
    await show(said);
  } catch (error) {
    if (mine === asked) tell(`No answer: ${error.message}`);
  }
}

function length(value, metric) {
  if (!metric) return `${value.toPrecision(2)} units of the scene`;
  return value < 0.1 ? `${Number((100 * value).toPrecision(2))} cm` : `${value.toPrecision(2)} m`;
}

function describe(said) {
  const metric = said.unit === "m";
  const unit = metric ? "m" : "units of the scene";
  const triple = (values, digits) => values.map((value) => value.toFixed(digits)).join(", ");
  const look = said.world_from_cam.slice(0, 3).map((row) => row[2]);
  // Millimetres; in a unit of which nothing is known, three digits of the largest number.
  const small = -Math.floor(Math.log10(Math.max(...said.position.map(Math.abs), 1e-12)));
  const digits = metric ? 3 : 3 + Math.max(0, small);
  part("position").textContent = `${triple(said.position, digits)} ${unit}`;
  part("look").textContent = triple(look, 3);
  part("sigma").textContent =
    said.sigma_m === null
      ? "not known"
      : `± ${length(said.sigma_m, metric)}, ± ${said.sigma_deg.toPrecision(2)}° per axis`;
  part("method").textContent = said.inliers === null ? said.method : `${said.method}, ${said.inliers} matches`;
  part("time").textContent = `${Math.round(said.time_ms)} ms`;
  part("warnings").replaceChildren(
    ...said.warnings.map(({ text }) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  part("answer").hidden = false;
}

function given(files) {
  if (files.length) ask(files[0]);
}

for (const id of ["file", "camera"]) {
  part(id).addEventListener("change", (event) => {
    given([...event.target.files]);
    event.target.value = ""; // so that the same photo may be given again
  });
}
document.addEventListener("paste", (event) => given([...event.clipboardData.files]));
const drop = part("drop");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  given([...event.dataTransfer.files]);
});
part("scenes").addEventListener("change", () => {
  asked += 1;
  part("answer").hidden = true;
  tell("");
  show();
});
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", part("key").value);
  begin();
});

const begin = () => start().catch((error) => tell(`No answer: ${error.message}`));
begin();
