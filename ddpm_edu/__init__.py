"""ddpm_edu: generative models, from likelihood to text-to-image diffusion.

Four nouns, each ignorant of the others' insides:

========= ============== ===========================================================
noun      module         what it is
========= ============== ===========================================================
process   `process.py`   the mathematics of q: how data turns into noise
denoiser  `denoiser.py`  a network, what it predicts, and the process it was made for
sampler   `samplers.py`  a generator of states, from x_T down to x_0
codec     `codec.py`     pictures to what diffuses, and back
========= ============== ===========================================================

Around them: `objectives.py` (losses), `nets/`, `data.py`, `training.py` (the loop), `pretrained.py` (the shipped
weights), `recipes/` (how each shipped model is trained), `viz.py` and `widgets.py` (figures and sliders),
`exercises/`, `cli.py`. Start reading at `process.py`: its head is the glossary.
"""
