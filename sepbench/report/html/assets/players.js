// Sounds of one mixture in step: another source goes on where the last one was. Files are loaded when they are first asked for.
(function () {
  "use strict";
  for (const example of document.querySelectorAll("[data-example]")) {
    const player = example.querySelector("[data-player]");
    if (!player) { continue; }
    const play = player.querySelector("[data-play]"), seek = player.querySelector("[data-seek]");
    const time = player.querySelector("[data-time]"), source = player.querySelector("[data-source]");
    const choices = Array.from(example.querySelectorAll("[data-sound]"));
    const sounds = new Map();
    let current = null, position = 0, playing = false;
    let heard = null; // the sound that tells the position: none while another is being loaded

    function sound(choice) {
      if (!sounds.has(choice)) {
        const audio = new Audio();
        audio.preload = "auto";
        audio.src = choice.dataset.sound;
        audio.addEventListener("ended", function () { if (choice === current) { position = 0; stop(); move(); } });
        audio.addEventListener("error", function () { source.textContent = choice.dataset.label + " cannot be played"; });
        sounds.set(choice, audio);
      }
      return sounds.get(choice);
    }

    function move() {
      seek.value = position;
      time.textContent = position.toFixed(1) + " s";
      example.style.setProperty("--played", String(position / seek.max));
    }

    function tick() {
      if (!playing || !heard) { return; }
      position = heard.currentTime;
      move();
      requestAnimationFrame(tick);
    }

    function stop() {
      playing = false;
      heard = null;
      play.textContent = "Play";
      for (const audio of sounds.values()) { audio.pause(); }
    }

    function start() {
      const audio = sound(current);
      heard = null;
      for (const other of sounds.values()) { if (other !== audio) { other.pause(); } }
      const begin = function () {
        if (audio !== sound(current)) { return; }
        audio.currentTime = Math.min(position, audio.duration || position);
        if (playing) { audio.play().then(function () { if (audio === sound(current)) { heard = audio; tick(); } }, stop); }
      };
      if (audio.readyState >= 1) { begin(); } else { audio.addEventListener("loadedmetadata", begin, { once: true }); }
    }

    // at: where to go on; else where the source before is now.
    function choose(choice, at) {
      if (at !== undefined) { position = at; } else if (heard) { position = heard.currentTime; }
      current = choice;
      choice.checked = true;
      source.textContent = choice.dataset.label;
      for (const one of choices) { one.closest(".card").classList.toggle("heard", one.closest(".card") === choice.closest(".card")); }
      start();
    }

    play.addEventListener("click", function () {
      if (playing) { stop(); return; }
      for (const other of document.querySelectorAll("[data-play]")) { if (other !== play && other.textContent === "Pause") { other.click(); } }
      playing = true;
      play.textContent = "Pause";
      choose(current || choices[0], position);
    });
    seek.addEventListener("input", function () {
      position = Number(seek.value);
      if (current) { sound(current).currentTime = position; }
      move();
    });
    for (const choice of choices) { choice.addEventListener("change", function () { choose(choice); }); }
    for (const strip of example.querySelectorAll(".spectrogram:not(.error)")) {
      const own = Array.from(strip.closest(".card").querySelectorAll("[data-sound]"));
      if (!own.length) { continue; }
      strip.addEventListener("click", function (event) {
        const box = strip.getBoundingClientRect();
        const place = (event.clientX - box.left) / box.width * own.length;
        const k = Math.min(own.length - 1, Math.max(0, Math.floor(place)));
        stop();
        playing = true;
        play.textContent = "Pause";
        choose(own[k], (place - k) * seek.max);
        move();
      });
    }
  }
})();
