"""Mistakes that would make numbers wrong in silence, each with the tests that ought to notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One mistake: in `file`, `old` (which stands there once) becomes `new`; `tests` are ids as pytest takes them."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutation(what: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(what, f"fusionbench/{file}", old, new, tuple(f"tests/test_{test}" for test in tests))


RATES = "robust.py::test_the_learning_rate_is_that_of_the_best_validation_and_of_equals_the_smallest"
TRAINING_PEOPLE = "robust.py::test_chance_and_the_scale_of_damage_are_those_of_training_people"
IDENTITY = "records.py::test_identity_is_run_code_data_and_protocol_and_nothing_else"
TEST_IS_NAN = "harness.py::test_nan_in_every_test_label_and_input_leaves_the_weights_bit_identical"
BY_HAND = "verdicts.py::test_the_variance_is_the_analysis_of_variance_by_hand"
FAMILIES = "leaderboard.py::test_a_row_of_another_family_moves_no_p_and_no_place"

MUTATIONS = (
    # Choices on validation.
    mutation(
        "the learning rate is that of the worst validation", "harness/execute.py",
        "key=lambda rate: (valid[rate].score, -rate)", "key=lambda rate: (-valid[rate].score, -rate)", RATES,
    ),
    mutation(
        "of equal learning rates the largest", "harness/execute.py",
        "key=lambda rate: (valid[rate].score, -rate)", "key=lambda rate: (valid[rate].score, rate)", RATES,
    ),
    mutation(
        "the last checkpoint instead of the best", "engine/loop.py",
        "better = score > self.score or self.step == 0", "better = True",
        "engine.py::test_a_member_is_what_a_bare_loop_makes_of_it",
        "engine.py::test_early_stopping_waits_for_its_patience",
    ),
    mutation(
        "of equal settings of an estimator the last", "harness/fit.py",
        "if score > best[0] or not best[1]", "if score >= best[0] or not best[1]",
        "estimators.py::test_of_equal_settings_the_first_is_chosen",
    ),
    mutation(
        "of equal trials the later, as a killed search may have numbered them", "search/outcome.py",
        "key=lambda t: (t.value, is_default(t), json.dumps(t.params, sort_keys=True))",
        "key=lambda t: (t.value, is_default(t), t.number)",
        "search.py::test_equal_trials_are_told_apart_by_their_settings",
    ),
    mutation(
        "the worst single modality is what fusion is compared with", "stats/choice.py",
        "best = means.argmax(0) if higher_is_better else means.argmin(0)", "best = means.argmin(0)",
        "verdicts.py::test_whether_fusion_helps_is_found_where_the_answer_is_known",
    ),
    # The test split is sealed.
    mutation(
        "training validates on the test samples", "harness/setup.py",
        "splits.train, splits.val, lr", "splits.train, splits.test, lr", TEST_IS_NAN,
    ),
    mutation(
        "training sees the test samples", "harness/setup.py",
        "Member(run.fold, run.seed, splits.train,", "Member(run.fold, run.seed, splits.test,", TEST_IS_NAN,
    ),
    mutation(
        "networks are normalised by all samples", "engine/program.py",
        "blueprint.begin(member.seed, data, index)",
        "blueprint.begin(member.seed, data, torch.arange(len(data)))", TEST_IS_NAN,
    ),
    mutation(
        "estimators are normalised by all samples", "harness/fit.py",
        "blueprint.begin(seed, data, torch.from_numpy(train)).eval()",
        "blueprint.begin(seed, data, torch.arange(len(data))).eval()",
        "estimators.py::test_test_samples_are_not_looked_at",
    ),
    mutation(
        "a search looks at the test people", "search/space.py",
        "rows = np.sort(np.concatenate([splits.train, splits.val]))",
        "rows = np.sort(np.concatenate([splits.train, splits.val, splits.test]))",
        "search.py::test_nan_in_every_test_label_and_input_changes_no_trial",
        "search.py::test_inner_folds_are_by_person_and_leave_the_test_people_out",
    ),
    mutation(
        "the constant answer is that of the test labels", "harness/evaluate.py",
        "prior(Batch({}, data.y[train].cpu(), data.y_mask[train].cpu())",
        "prior(Batch({}, self.test.y, self.test.y_mask)", TRAINING_PEOPLE,
    ),
    mutation(
        "damage is scaled by all samples", "harness/evaluate.py",
        "statistics(data, train).items()", "statistics(data, torch.arange(len(data))).items()", TRAINING_PEOPLE,
    ),
    # Masks.
    mutation(
        "what lies under a False mask stays", "api/types.py",
        'object.__setattr__(self, "x", torch.where(wide, self.x, 0.0))', 'object.__setattr__(self, "x", self.x)',
        "api.py::test_what_lies_under_a_false_mask_is_gone",
    ),
    mutation(
        "means count what is not there", "api/layers.py",
        "weight = mask.to(x.dtype).reshape(", "weight = torch.ones_like(mask, dtype=x.dtype).reshape(",
        "api.py::test_masked_mean_is_the_mean_of_what_is_real",
    ),
    mutation(
        "attention looks at masked keys", "api/layers.py",
        "scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)", "scores = scores.clone()",
        "api.py::test_softmax_over_the_real_entries",
    ),
    mutation(
        "metrics count unlabelled frames", "metrics.py",
        "shown, truth = (a[y_mask].astype(np.float64) for a in (pred, y))",
        "shown, truth = (a[np.ones_like(y_mask)].astype(np.float64) for a in (pred, y))",
        "metrics.py::test_what_lies_under_the_mask_does_not_count",
    ),
    mutation(
        "a sample may lose every modality", "corruptions/missing.py",
        "    if keep_one:\n", "    if False:\n",
        "corruptions.py::test_absent_keeps_one_of_all_and_loses_more_with_severity",
    ),
    # Paired by keys.
    mutation(
        "damage is drawn by a sample's place", "corruptions/__init__.py",
        "keyed.sample_keys(ids, name, seed, modality)",
        "keyed.sample_keys([str(i) for i, _ in enumerate(ids)], name, seed, modality)",
        "corruptions.py::test_keys_are_of_a_samples_name_and_not_of_its_place",
    ),
    mutation(
        "damage is the same at every seed", "corruptions/__init__.py",
        "keyed.sample_keys(ids, name, seed, modality)", "keyed.sample_keys(ids, name, modality)",
        "corruptions.py::test_draws_differ_between_seeds_samples_and_modalities",
    ),
    mutation(
        "two draws of one step are the same noise", "api/keyed.py",
        "_current.site += 1", "_current.site += 0",
        "api.py::test_draws_within_a_scope_are_numbered_and_scopes_nest",
    ),
    mutation(
        "noise depends on who is trained beside", "engine/program.py",
        'keyed.number("train", m.seed, m.fold) for m in members',
        'keyed.number("train", k) for k, m in enumerate(members)',
        "engine.py::test_a_stacked_member_equals_the_member_alone",
    ),
    mutation(
        "backbones start differently for each fuser", "engine/model.py",
        'keyed.number("backbone", seed, m)', 'keyed.number("backbone", seed, m, self.fuser.__name__)',
        "model.py::test_every_fuser_meets_the_same_backbones_at_one_seed",
    ),
    # Statistics.
    mutation(
        "intervals without the seeds", "stats/variance.py",
        "    if seeds > 1:\n        run, rest", "    if seeds > 99:\n        run, rest",
        "stats.py::test_an_interval_widens_with_what_seeds_do",
    ),
    mutation(
        "tests without the seeds", "stats/variance.py",
        "else [side for side in (left, right) if len(side) > 1]", "else []", BY_HAND,
    ),
    mutation(
        "seed noise counts as people's, twice", "stats/variance.py",
        "variance = seeds + np.maximum(people - sum(rests), 0.0)", "variance = seeds + people", BY_HAND,
    ),
    mutation(
        "no correction for many comparisons", "stats/tests.py",
        "running = max(running, min(1.0, left * p))", "running = max(running, p)",
        "verdicts.py::test_holm_is_the_textbooks",
        "verdicts.py::test_nothing_that_is_said_contradicts_anything_else",
    ),
    mutation(
        "one family for recipes and default rows", "records/rows.py",
        'return "recipes" if any(', 'return "recipes" if False and any(', FAMILIES,
    ),
    mutation(
        "concordance forgets the difference of means", "metrics.py",
        "return ratio(2 * cov, var_x + var_y + (x - y) ** 2).mean(-1)", "return ratio(2 * cov, var_x + var_y).mean(-1)",
        "metrics.py::test_concordance_from_sums_is_that_of_the_samples",
    ),
    mutation(
        "unfinished rows are ranked", "records/rows.py",
        "return self.complete and not self.stale and not self.quick", "return not self.stale and not self.quick",
        "leaderboard.py::test_rows_that_lack_something_stand_last_and_are_not_ranked",
    ),
    mutation(
        "quick rows are ranked", "records/rows.py",
        "return self.complete and not self.stale and not self.quick", "return self.complete and not self.stale",
        "records.py::test_a_quick_row_is_never_ranked_however_complete",
    ),
    mutation(
        "answers of NaN are a result", "harness/evaluate.py",
        "            if bad:\n", "            if False:\n", "robust.py::test_answers_of_nan_are_a_failed_run",
    ),
    # Records.
    mutation(
        "a record of other data counts", "records/types.py",
        "(r.run.id, dict(r.code), r.data, r.protocol)", "(r.run.id, dict(r.code), r.protocol)", IDENTITY,
    ),
    mutation(
        "a record of other code counts", "records/types.py",
        "(r.run.id, dict(r.code), r.data, r.protocol)", "(r.run.id, r.data, r.protocol)", IDENTITY,
    ),
    mutation(
        "a fingerprint does not see what a file imports", "registry.py",
        "if isinstance(node, ast.ImportFrom) and node.level == 1:",
        "if isinstance(node, ast.ImportFrom) and node.level == 9:",
        "registry.py::test_a_fingerprint_sees_the_file_and_what_it_imports_relatively",
    ),
    mutation(
        "a file may be seen half-written", "records/store.py",
        '    if hasattr(os, "O_TMPFILE"):\n',
        '    with path.open("wb") as file:\n        return fill(file)\n    if hasattr(os, "O_TMPFILE"):\n',
        "records.py::test_a_half_written_file_is_never_seen",
    ),
    mutation(
        "`run` takes what others have published for its own", "jobs/plan.py",
        "own=not published", "own=False",
        "front_door.py::test_run_trains_what_others_have_published_and_a_second_time_nothing[1]",
    ),
)  # fmt: skip
