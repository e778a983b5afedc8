# Copy this file into the folder of your class; README, "Grading a class", has the commands.
from ddpm_edu.grading.gradebook import configure

c = get_config()  # noqa: F821
configure(c, course_id="ddpm_edu")
# c.GradeSubmission.hidden = "/home/teacher/checks"   # checks of your own: Python files outside of source/
