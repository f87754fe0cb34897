"""Run folders: the configuration of a run, the files it writes, and how other packages read them.

`config` is the configuration of a run, `images` selects its images, `folder` opens and writes its folder, `checkpoint`
saves and loads the state that it resumes from, and `results` runs its model on the test images. `records` and
`sampling_record` read finished runs, and `locks` lets only one process at a time work on a run.
"""
