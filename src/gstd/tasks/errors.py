"""Broken rules about jobs, tasks and attempts."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class InvalidJobError(GstdError):
    """The job contradicts itself or a limit."""

    code = "invalid_job"
    status = 422
    hint = "Nothing was locked. Correct the field that the message names."


class RewardTooLowError(InvalidJobError):
    """The reward per task is below the minimum."""

    code = "reward_too_low"
    hint = "Nothing was locked. Raise the reward to the minimum that the message names."


class GraphTooLargeError(InvalidJobError):
    """The graph has more nodes or edges than one request may have."""

    code = "graph_too_large"
    hint = "Nothing was locked. Post it in parts, or let whole jobs wait for one another."


class GraphCycleError(InvalidJobError):
    """The tasks wait for one another in a circle."""

    code = "graph_cycle"
    hint = "Nothing was locked. Remove one of the edges that the message names."


class ParentNotFoundError(InvalidJobError):
    """The job waits for something that the account does not have."""

    code = "parent_not_found"
    hint = "Nothing was locked. `after` takes ids of your own jobs, or names in the same graph."


class StillRunningError(GstdError):
    """The job or a rerun of it has not ended."""

    code = "job_still_running"
    status = 409
    hint = "Wait for its end with `gstd job watch JOB`, or cancel it."


class NothingToRerunError(GstdError):
    """Every task of the job has a result."""

    code = "nothing_to_rerun"
    status = 409
    hint = "Nothing was locked. Read the results with `gstd job results JOB`."


class JobNotFoundError(GstdError):
    """The account has no such job."""

    code = "job_not_found"
    status = 404
    hint = "List your jobs with `gstd job list`."


class JobOverError(GstdError):
    """The job has ended."""

    code = "job_over"
    status = 409
    hint = "Nothing was changed. Post the job anew if its work is still needed."


class TaskOverError(GstdError):
    """The task has ended."""

    code = "task_over"
    status = 409
    hint = "Nothing was changed."


class TaskNotFoundError(GstdError):
    """The account has no such task."""

    code = "task_not_found"
    status = 404
    hint = "Tasks are listed with their job: `gstd job show JOB`."


class OutputHiddenError(GstdError):
    """The task has no accepted result yet, and what is not verified stays hidden."""

    code = "output_hidden"
    status = 409
    hint = "Wait for the task to be accepted: `gstd job watch JOB`."


class AttemptNotFoundError(GstdError):
    """The device has no such attempt."""

    code = "attempt_not_found"
    status = 404
    hint = "Claim a task first."


class AttemptOverError(GstdError):
    """The attempt has ended; its task may be somebody else's by now."""

    code = "attempt_over"
    status = 409
    hint = "Stop working on it: a late result is never accepted. Ask for new offers."


class AlreadySubmittedError(GstdError):
    """Another result was submitted for this attempt before."""

    code = "already_submitted"
    status = 409
    hint = "A result cannot be changed once it is submitted."


class TaskTakenError(GstdError):
    """The task is not waiting for this device any more."""

    code = "task_taken"
    status = 409
    hint = "Ask for new offers."
