// Reading by the server that the page is from: POST /read.

const PICTURES = true; // photographs are read too
const MAX_BYTES = 20_000_000; // of a picture's file, the same as the server's

// Return the reply of POST /read for a page of a picture's file, or without one for the drawing on
// the canvas; with `refused`, a sentence, if it fails. `progress` is called with the fraction sent.
async function read({ canvas, picture, page = 1, progress = () => {} }) {
  const refused = (sentence) => ({ refused: sentence });
  const name = picture ? picture.name : "The drawing";
  if (picture && picture.size > MAX_BYTES) {
    return refused(`${name} is too big: at most ${MAX_BYTES / 1e6} MB can be read.`);
  }
  if (picture && !(await openable(picture))) return refused(`${name} cannot be opened.`);
  if (picture && picture.size === 0) return refused(`${name} is empty.`);
  const body = picture || (await new Promise((made) => canvas.toBlob(made, "image/png")));
  const { status, response } = await post(`read?page=${page}&preview=${Boolean(picture)}`, body, progress);
  if (status === 200 && response) return response;
  if (status >= 400 && response && response.detail) {
    return refused(`${name} cannot be read: ${response.detail}.`);
  }
  return refused("The server gives no answer. Is it still running?");
}

// Return the finished request; its status is 0 if there is no response. fetch reports no progress.
function post(url, body, progress) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
    request.onloadend = () => resolve(request);
    request.responseType = "json";
    request.open("POST", url);
    request.send(body);
  });
}

// Return whether a file can be read; false for a folder, or if it was moved or changed meanwhile.
async function openable(file) {
  return file.slice(0, 1).arrayBuffer().then(() => true, () => false);
}
