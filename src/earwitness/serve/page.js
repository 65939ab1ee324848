// Runs once, with `element` the root of the result; its content changes, so events are caught here.
const stage = () => element.querySelector('.ew-stage');
const player = () => element.querySelector('audio');

function seek(seconds, play) {
  const audio = player();
  if (!audio) return;
  audio.currentTime = seconds;
  if (play) audio.play().catch(() => {});
}

function follow() {
  const audio = player(), box = stage();
  if (!audio || !box) return;
  const at = audio.currentTime, seconds = Number(box.dataset.seconds);
  box.querySelector('.ew-head').style.left = `${Math.min(100, 100 * at / seconds)}%`;
  for (const button of box.querySelectorAll('.ew-lane button')) {
    const now = at >= Number(button.dataset.start) && at < Number(button.dataset.end);
    button.toggleAttribute('data-now', now);
    if (now) element.querySelector('[data-caption]').textContent = button.dataset.text;
  }
}

function glide() {
  follow();
  const audio = player();
  if (audio && !audio.paused) requestAnimationFrame(glide);
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-start]');
  if (button) return seek(Number(button.dataset.start), true);
  const plot = event.target.closest('.ew-plot');
  if (plot) {
    const box = plot.getBoundingClientRect();
    seek(Number(stage().dataset.seconds) * (event.clientX - box.left) / box.width, false);
  }
});
element.addEventListener('play', glide, true);
element.addEventListener('seeked', follow, true);
element.addEventListener('timeupdate', follow, true);
