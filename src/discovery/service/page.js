(() => {
  const live = () => document.querySelectorAll("[data-live]");
  if (live().length === 0) return;
  let busy = false;
  const refresh = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of live()) {
        const now = fresh.getElementById(old.id);
        if (now && now.outerHTML !== old.outerHTML) old.replaceWith(document.importNode(now, true));
      }
    } catch {
      const note = document.getElementById("note");
      if (note) note.textContent = "The service does not answer at the moment; this page tries again.";
    }
    busy = false;
  };
  setInterval(refresh, 2000);
  document.addEventListener("visibilitychange", refresh);
})();
