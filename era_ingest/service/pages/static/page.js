// Parts of a page that change are fetched again while somebody looks; without this, reloading does the same.
"use strict";

const TRY_AGAIN_S = 15;

async function refresh(part) {
  const answer = await fetch(part.dataset.live, { headers: { Accept: "text/html" } });
  if (answer.redirected) {
    location.reload(); // the session has ended: the page itself leads to the sign-in
    return;
  }
  if (!answer.ok) throw new Error(`${answer.status}`);
  const fresh = await answer.text(); // our own page: every value in it is escaped
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  part.innerHTML = fresh;
  if (focused) [...part.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function follow(part) {
  const seconds = Number(part.querySelector("[data-every]")?.dataset.every || TRY_AGAIN_S);
  setTimeout(async () => {
    try {
      if (!document.hidden) await refresh(part);
    } catch {
      // not reachable just now: what stands there stays, and is asked for again
    }
    follow(part);
  }, seconds * 1000);
}

document.querySelectorAll("[data-live]").forEach(follow);
