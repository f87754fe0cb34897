"""The run folder as a contract: what a run was told, what it writes, and how others read it.

`config` is what a run is told, `images` the images it sees, `folder` the files in its folder, `checkpoint` the state it
resumes from, `results` its test scores. `records` and `sampling_record` are for those who read finished runs, `locks`
keeps two processes from working on one run.
"""
