"""No claim is about fewer rows than its sentence says; and what the text tells of the tables without a claim."""

import ast
import json
import re

import pytest

from dts_mini.course import claims
from dts_mini.course.build import read, sources
from dts_mini.measures import text
from dts_mini.measures.cells import SIZES
from dts_mini.measures.tables import MERGES, rows_of
from dts_mini.peers import PEERS
from dts_mini.results import CURVES, LONG, RESULTS, SEEDS
from dts_mini.suites.mini.suite import DATA

SOURCES = pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)

# Sentences about all rows of a kind. One that names how many it means ("the best of these three merges") is its own.
WHOLE = re.compile(
    r"\b(?:every|each|any|all|no|best)(?: other| of the| of all| base)?(?: merges?| DTS rows?)\b|\bmerge that is best\b"
)


def statements(source) -> list[ast.stmt]:
    """The statements of a notebook's code, at its top level, in order."""
    return [node for cell in read(source).cells if cell.cell_type == "code" for node in ast.parse(cell.source).body]


def claims_about_whole_tables(body: list[ast.stmt]):
    """(sentence, whether its rows come from ``rows_of``) of each claim about all rows of a kind.

    A row called "best merge" is as good: ``measures.routing`` takes it from all merges there are.
    """
    for place, statement in enumerate(body):
        for call in claims.calls(ast.unparse(statement)):
            if WHOLE.search(call.sentence):
                found = reached(statement, body[:place])
                yield call.sentence, "rows_of" in found or any(word.startswith("best merge, ") for word in found)


def reached(statement: ast.stmt, before: list[ast.stmt]) -> set[str]:
    """The names and words that a statement rests on: those in it, and in what binds its names, in turn."""
    names = read_by(statement)
    for other in reversed(before):
        if bound_by(other) & names:
            names |= read_by(other)
    return names


def read_by(node: ast.AST) -> set[str]:
    words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return words | {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def bound_by(node: ast.AST) -> set[str]:
    stored = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return stored | ({node.name} if isinstance(node, ast.FunctionDef) else set())


@SOURCES
def test_a_claim_about_every_row_takes_its_rows_from_the_table(source):
    for sentence, whole in claims_about_whole_tables(statements(source)):
        assert whole, f"take the rows by rows_of, or say which you mean: {sentence}"


def test_a_list_of_rows_is_not_the_table():
    lines = 'few = ["average", "TIES"]\nbest = max(few, key=mean.get)\nclaim("a", "It is above every merge.", best)'
    assert [whole for _, whole in claims_about_whole_tables(ast.parse(lines).body)] == [False]
    lines = lines.replace('["average", "TIES"]', '[row["name"] for row in rows_of(table, "base merge")]')
    assert [whole for _, whole in claims_about_whole_tables(ast.parse(lines).body)] == [True]
    lines = 'claim("a", "It is above the best of these three merges, and the base merge.", 1)'
    assert not list(claims_about_whole_tables(ast.parse(lines).body))


# --- the numbers themselves, from the tables ---


@pytest.fixture(scope="module")
def headline() -> dict:
    return json.loads(RESULTS.read_text())["headline"]


@pytest.fixture(scope="module")
def seeds() -> dict:
    return json.loads(SEEDS.read_text())


@pytest.fixture(scope="module")
def recorded() -> dict:
    return {claim["name"]: claim["value"] for claim in claims.recorded()}


def means(table, *kinds, **which) -> dict[str, float]:
    return {row["name"]: row["mean"]["value"] for row in rows_of(table, *kinds, **which)}


def test_the_headline_claims_are_about_the_hardest_row(headline, seeds, recorded):
    (experts,) = means(headline, "experts").values()
    assert recorded["07-experts-above"] == pytest.approx(
        experts - max(means(headline, "base merge").values()), abs=1e-5
    )
    kept = [row["share of experts"]["value"] for row in rows_of(headline, "DTS-T", "DTS-D", keep_ratio=0.1)]
    assert recorded["07-kept-10"] == pytest.approx(min(kept), abs=1e-5)
    each = lambda i, *kinds: [row["mean"]["each"][i] for row in rows_of(seeds, *kinds)]
    gaps = [min(each(i, "DTS-T", "DTS-D")) - max(each(i, "base merge")) for i in range(len(seeds["seeds"]))]
    assert recorded["07-seeds-gap"] == pytest.approx(min(gaps), abs=1e-5)


def test_a_difference_vector_costs_the_bytes_of_a_task_vector(headline):
    for ratio in (0.05, 0.1, 0.3):
        ((plain,), others) = (rows_of(headline, kind, keep_ratio=ratio) for kind in ("DTS-T", "DTS-D"))
        assert all(0.97 * plain["storage"] <= row["storage"] <= plain["storage"] for row in others)


def test_merges_that_are_better_by_themselves_are_worse_bases(headline):
    alone, kl = means(headline, "base merge"), {row["name"]: row["kl from experts"] for row in headline["rows"]}
    over = lambda merge: kl[f"DTS-D, {merge}, 0.1"]
    assert alone["TSV-M"] == max(alone.values()) and alone["DARE"] > alone["average"] < alone["Iso-C"]
    assert over("TSV-M") > over("Iso-C") > kl["DTS-T, 0.1"] > max(over("average"), over("TIES"))


def test_at_one_keep_ratio_all_dts_rows_are_close_in_accuracy_and_move_little_between_trainings(headline, seeds):
    close = means(headline, "DTS-T", "DTS-D", keep_ratio=0.1).values()
    assert max(close) - min(close) < 0.015
    each = [row["mean"]["each"] for row in rows_of(seeds, "DTS-T", "DTS-D")]
    assert max(max(row) - min(row) for row in each) < 0.015


def test_on_vehicles_even_the_expert_makes_the_most_mistakes(headline):
    (experts,) = rows_of(headline, "experts")
    accuracy = {task: cell["value"] for task, cell in experts["accuracy"].items()}
    assert min(accuracy, key=accuracy.get) == "vehicles"


# --- what notebook 09 tells of all cases ---


@pytest.fixture(scope="module")
def cases() -> dict:
    return {row["name"]: row for row in json.loads((DATA / "unseen.json").read_text())["rows"]}


def test_no_weighting_is_far_from_the_base_merge_in_the_mean_and_abstaining_helps_it(cases):
    gain = lambda name: cases[name]["gain on base merge"]
    for name in ("uniform", *(name for name in cases if name.endswith(", prompts") and "abstain" not in name)):
        assert abs(gain(name)["value"]) < 0.02, name
    assert all(gain(name)["low"] > 0 for name in cases if name.startswith("abstain, ") and name != "abstain, chosen")


def test_hedging_by_nearness_is_better_than_any_weighting_in_the_mean_and_in_the_worst_case(cases):
    hedged = cases["hedge by nearness"]
    for name, row in cases.items():
        if not name.startswith(("hedge", "oracle", "half way")):
            assert row["gain on base merge"]["value"] < hedged["gain on base merge"]["value"], name
            assert row["worst"]["value"] < hedged["worst"]["value"], name


def test_the_share_chosen_on_seen_tasks_is_worse_in_the_worst_case_than_half_the_way(cases):
    assert cases["hedge, chosen"]["worst"]["value"] < cases["hedge 0.5"]["worst"]["value"]


# --- what notebook 10 and the pages tell of the curve ---


@pytest.fixture(scope="module")
def curve() -> dict:
    return json.loads(CURVES.read_text())


@pytest.fixture(scope="module")
def kl(curve) -> dict[tuple[str, str], float]:
    """The KL divergence of each method at each size."""
    points = [row for row in curve["rows"] if row["group"] == "curve" and "storage" in row]
    return {(row["name"], row["size"]): row["kl from experts"]["value"] for row in points}


def test_the_claims_of_the_curve_are_about_the_nearest_of_all_rivals(curve, kl, recorded):
    others = {name: x for (name, size), x in kl.items() if size == "1%" and not name.startswith("DRC-")}
    over = {x: min(others[name] for name in others if ("average" in name) == x) for x in (True, False)}
    shares = kl["DRC-T", "1%"] / over[False], kl["DRC-D, average", "1%"] / over[True]
    assert recorded["10-any-other"] == pytest.approx(max(shares), abs=1e-4)
    assert any(name in PEERS for name in others if others[name] == over[False])
    assert all(kl["DRC-D, average", size] < kl["DeltaMix, average", size] for size in SIZES)
    nearest = lambda size: min(x for (name, at), x in kl.items() if at == size and name in PEERS)
    factors = [nearest(size) / kl["DRC-T", size] for size in ("1%", "2%", "3.7%")]
    assert recorded["10-ahead"] == pytest.approx(min(factors), rel=1e-2)  # the divergences are rounded
    assert all(kl["DRC-T", size] <= nearest(size) for size in SIZES if float(size[:-1]) <= 4)


def test_three_bits_are_far_nearer_than_half_precision_and_two_are_not_at_the_largest_size(kl):
    plain = {size: min(kl["TSV-C", size], kl["low-rank, water-filling", size]) for size in SIZES}
    assert all(2 * kl["low-rank INT3", size] < plain[size] for size in SIZES)
    assert plain["6.25%"] < min(kl["low-rank INT2", "6.25%"], kl["DTS-T, ranks by budget", "6.25%"])


def test_a_scale_a_tensor_makes_t_switch_weaker_in_small_files_and_stronger_in_large_ones(kl):
    ratio = {size: kl["T-Switch, a scale a tensor", size] / kl["T-Switch", size] for size in SIZES}
    assert all(ratio[size] > 1.3 if float(size[:-1]) <= 2 else ratio[size] < 0.5 for size in SIZES)


def test_only_the_average_is_a_better_base_of_drc_than_theta_0(curve, kl):
    over = {row["name"]: row["kl from experts"]["value"] for row in curve["rows"] if row["group"] == "bases"}
    assert [merge for merge in MERGES if over[f"DRC-D, {merge}"] < kl["DRC-T", "1%"]] == ["average"]
    assert [merge for merge in MERGES if over[f"DRC-D, {merge}"] > over[f"DTS-D, {merge}"]] == ["Iso-C"]


def test_no_plain_part_of_a_task_vector_keeps_in_a_hundredth_what_dts_keeps(headline, curve):
    kept = [row["share of experts"]["value"] for row in rows_of(headline, "cheap") if row["storage"] < 0.011]
    at_1 = {row["name"]: row["share of experts"]["value"] for row in curve["rows"] if row["size"] == "1%"}
    plain = ("TSV-C", "low-rank, water-filling", "magnitude pruning")
    assert max(*kept, *(at_1[name] for name in plain)) < 0.99 < at_1["DTS-T"]


def test_zero_shot_with_synonyms_is_above_every_merge_and_every_fused_model(headline):
    unseen = json.loads(RESULTS.read_text())["unseen"]
    (words,) = (row for row in headline["rows"] if row["name"] == "zero-shot, synonyms")
    assert words["mean"]["value"] > max(means(headline, "base merge").values())
    for row in rows_of(unseen, "DTS unseen"):
        assert all(cell["value"] < words["accuracy"][task]["value"] for task, cell in row["accuracy"].items())


def test_the_page_of_results_says_of_each_goal_of_its_own_whether_it_was_missed(curve):
    aims = LONG.read_text().partition("<!-- results:aims -->")[2].partition("<!-- end -->")[0]
    told = {line.split(" | ")[0][2:]: "**missed**" in line for line in aims.splitlines() if line.startswith("| ")}
    goals = {goal["goal"]: not goal["reached"] for goal in curve["goals"]}
    assert {goal: missed for goal, missed in goals.items() if ", beside " not in goal}.items() <= told.items()
    assert all(goal in aims for goal, missed in goals.items() if missed)


# --- what holds in every training, and on other grounds ---


@pytest.fixture(scope="module")
def texts() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (DATA.parent / "text").glob("*.json")}


def each_training(table, entry: str, *kinds, **which) -> list[list[float]]:
    """Of each training what the rows of these families have."""
    rows = [row[entry]["each"] for row in rows_of(table, *kinds, **which)]
    return [list(values) for values in zip(*rows, strict=True)]


def test_in_every_training_merges_dts_and_drc_stand_in_this_order_in_vision_and_on_texts(seeds, texts):
    for table in (seeds, texts["seeds"]):
        of = lambda *kinds, table=table, **which: each_training(table, "mean", *kinds, **which)
        rows = zip(of("base merge"), of("DTS-T", "DTS-D"), of("DTS-T", "DTS-D", keep_ratio=0.1), of("DRC"), strict=True)
        for merges, all_dts, at_tenth, drc in rows:
            assert max(merges) < min(all_dts) and max(at_tenth) < min(drc)


def test_over_the_average_and_ties_dts_is_nearer_in_every_training_by_what_notebook_07_claims_of_one(curve):
    at_1 = {row["name"]: row["kl from experts"]["each"] for row in curve["rows"] if row["size"] == "1%"}
    ratios = {base: [a / b for a, b in zip(at_1[f"DTS-D, {base}"], at_1["DTS-T"], strict=True)] for base in MERGES}
    assert max(*ratios["average"], *ratios["TIES"]) < 0.9
    assert min(*ratios["TSV-M"], *ratios["Iso-C"]) > 1


def test_tsv_m_is_a_poorer_base_than_theta_0_in_the_mini_suite_and_a_better_one_on_texts(curve, texts):
    kl = {row["name"]: row["kl from experts"]["each"] for row in texts["seeds"]["rows"]}
    assert all(a < b for a, b in zip(kl["DTS-D, TSV-M, 0.1"], kl["DTS-T, 0.1"], strict=True))
    assert all(a > b for a, b in zip(kl["DRC-D, average, 1 %"], kl["DRC-T, 1 %"], strict=True))
    over = {row["name"]: row["kl from experts"]["each"] for row in curve["rows"] if row["size"] == "1%"}
    assert all(a > b for a, b in zip(over["DTS-D, TSV-M"], over["DTS-T"], strict=True))


def test_on_texts_larger_files_do_not_help_dts_over_theta_0_and_do_over_ties(texts):
    kl = {row["name"]: row["kl from experts"]["each"] for row in texts["seeds"]["rows"]}
    assert all(a < b for a, b in zip(kl["DTS-D, TIES, 0.3"], kl["DTS-D, TIES, 0.05"], strict=True))
    points = {(row["name"], row["size"]): row["kl from experts"]["each"] for row in texts["curves"]["rows"]}
    assert all(a >= b for a, b in zip(points["DTS-T", "3.7%"], points["DTS-T", "0.5%"], strict=True))


def test_rounding_is_nearer_than_dts_by_more_on_texts_than_in_vision(texts, kl):
    of_texts = {(row["name"], row["size"]): row["kl from experts"]["value"] for row in texts["curves"]["rows"]}
    for size in ("0.5%", "1%", "2%", "3.7%"):
        there, here = (found["low-rank INT3", size] / found["DTS-T", size] for found in (of_texts, kl))
        assert there < here < 1
    near = [name for name in ("low-rank INT3", "Delta-CoMe", "DeltaMix") if kl[name, "1%"] < kl["DTS-D, average", "1%"]]
    assert len(near) == 3  # what the README says of other ways to round


def test_every_method_that_is_to_be_measured_on_texts_has_its_row_at_every_size(texts):
    measured = {(row["name"], row["size"]) for row in texts["curves"]["rows"]}
    assert {(name, size) for name in text.METHODS for size in text.SIZES} <= measured, "run make text"


def test_on_texts_no_fusion_surely_gains_on_zero_shot_by_more_than_a_point_and_some_lose_points(texts):
    rows = {row["name"]: row["gain on zero-shot"] for row in texts["unseen"]["rows"]}
    fused = {name: gain for name, gain in rows.items() if name not in ("zero-shot", "base merge", "oracle")}
    assert max(gain["value"] for gain in fused.values()) < 0.015
    assert max(gain["over seeds"][0] for gain in fused.values()) < 0.005
    assert min(gain["high"] for gain in fused.values()) < -0.02


def test_with_honest_captions_merges_change_places_and_dts_and_drc_do_not(headline):
    honest = json.loads((DATA / "honest.json").read_text())
    before, now = (means(table, "base merge") for table in (headline, honest))
    assert min(before, key=before.get) == "average" and now["average"] > max(now.values()) - 0.002
    kl_of = lambda *kinds, **which: [row["kl from experts"] for row in rows_of(honest, *kinds, **which)]
    at_tenth = kl_of("DTS-T", "DTS-D", keep_ratio=0.1)
    assert max(kl_of("DRC")) < min(at_tenth) and 3 * max(kl_of("DTS-T", "DTS-D")) < min(kl_of("base merge"))


def test_the_merges_that_come_nearer_to_the_experts_than_was_aimed_at_are_those_of_the_page(headline):
    (experts,) = means(headline, "experts").values()
    near = {name for name, mean in means(headline, "base merge").items() if experts - mean < 0.12}
    assert near == {"TIES", "Iso-C", "TSV-M"}
