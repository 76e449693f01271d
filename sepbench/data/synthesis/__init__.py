"""Songs of drums and bass made from nothing but seeds: the data sets ``drums-bass-synth/drums`` and ``drums-bass-synth/bass``.

``dice`` random numbers; ``styles``, ``score``, ``drum_part`` and ``bass_part`` compose; ``sound``, ``drums`` and ``bass`` make sound;
``songs`` puts a song's stems together; ``layout`` says how songs become splits and chunks; ``store`` keeps them as WAV files in the user's cache.

Bits: every sample is computed in float64 by additions, multiplications, divisions, square roots, table look-ups and ``scipy.signal.lfilter``
alone: no ``exp``, ``tan`` or FFT, whose last bits differ between machines. IEEE 754 fixes the results of the former, so the songs are the same
in every bit wherever a compiler does not fuse multiplications with additions (on x86-64: everywhere). Where it does, errors of 1e-16 to 1e-15
remain before the stems are rounded to 16 bits, and all 1.6e8 samples still round to the same numbers with a probability of about 99 %. Sums over
whole stems, whose order of addition is the library's own, only enter through gains on a coarse grid (``sound.on_grid``). The digests of the files
are frozen all the same, so that a machine that does differ is found out.
"""
