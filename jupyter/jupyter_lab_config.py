"""JupyterLab for this course: nothing asked of the network, nothing said that a learner need not read.

`make lab` names this folder in JUPYTER_CONFIG_PATH: it comes before a person's own settings, which stay as they are.
"""

c = get_config()  # noqa: F821  (Jupyter defines it for the files it reads)

c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
c.ServerApp.answer_yes = True  # Ctrl-C stops the server at once, as it stops every other command of make
c.ServerApp.allow_root = True  # matters in containers, where there often is no other user
c.ServerApp.port_retries = 0  # the port asked for, or a sentence; never another one unannounced
c.Application.log_level = "WARN"
