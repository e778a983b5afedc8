"""Grading a class: submissions run in a sandbox, and are judged outside it by the checks of the notebooks.

`wire` is what passes between the two sides, `worker` the side inside, `sandbox` what is around it; `submission` reads
what was handed in, `grade` judges it, `results` keeps it, and `report` tells it. `nbgrader` serves its gradebook.
"""
