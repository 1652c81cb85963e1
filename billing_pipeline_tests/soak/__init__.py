"""Kills the pipeline with SIGKILL, again and again, and proves that no number is ever a mixture and that the next run heals.

    python -m billing_pipeline_tests.soak --kills 100 [--seed 1] [--folder /tmp/soak] [--only "refresh --watch"]

The sandbox runs here; every command runs in a process of its own, through its own command line, on one data folder that lives
through all rounds. In between the providers' clock goes on and their numbers change, so that months are fetched anew, closed,
restated and approved. A process is killed before a random one of its file operations (Python tells them by audit events), or at
a random moment of its whole run; those of Dagster at a random moment.
"""
