// Reading by the server that the page is from: POST /read.

const PICTURES = true; // photographs are read too
const MAX_BYTES = 20_000_000; // of a picture's file, as the server has it

// What POST /read gives for a picture's file, or without one for the drawing on the canvas; with
// `refused`, a sentence, where it gives nothing.
async function read({ canvas, picture }) {
  const refused = (sentence) => ({ text: "", digits: [], refused: sentence });
  const name = picture ? picture.name || "The picture" : "The drawing";
  if (picture && picture.size > MAX_BYTES) {
    return refused(`${name} is too big: at most ${MAX_BYTES / 1e6} MB can be read.`);
  }
  const body = picture || (await new Promise((made) => canvas.toBlob(made, "image/png")));
  try {
    const response = await fetch(`read?preview=${Boolean(picture)}`, { method: "POST", body });
    if (response.ok) return await response.json();
    if (response.status < 500) {
      return refused(`${name} cannot be read: ${(await response.json()).detail}.`);
    }
  } catch (error) {
    if (picture && !(await openable(picture))) return refused(`${name} cannot be opened.`);
  }
  return refused("The server gives no answer. Is it still running?");
}

// A folder, or a file that was moved or changed after it was chosen, is not.
async function openable(file) {
  return file.slice(0, 1).arrayBuffer().then(() => true, () => false);
}
