from __future__ import annotations

from sweep_cases import make_jobs

from cnn_reg.sweeps.executors import in_process, looking, stop_file
from cnn_reg.sweeps.jobs import Place, State, state_of


def test_jobs_in_this_process_come_one_after_the_other_until_it_is_time_to_stop(tmp_path):
    jobs = make_jobs(tmp_path, seeds=3, epochs=1)
    ended = list(in_process(Place())(jobs, lambda: state_of(jobs[1].folder) is State.DONE))
    assert [(outcome.job, outcome.state) for outcome in ended] == [(jobs[0], State.DONE), (jobs[1], State.DONE)]
    assert not jobs[2].folder.exists()


def test_a_question_is_asked_at_most_so_often():
    asked = []

    def ask():
        asked.append(None)
        return len(asked) > 1

    rarely, always = looking(ask, every=3600), looking(ask, every=0)
    assert [rarely(), rarely(), rarely()] == [False] * 3
    assert len(asked) == 1
    assert always()


def test_stop_files_are_each_sweep_s_own(tmp_path):
    assert stop_file(tmp_path) != stop_file(tmp_path)
