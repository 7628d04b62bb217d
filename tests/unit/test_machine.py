"""The simulated machines: what they do comes from the seed, and happens in a believable way."""

from collections import Counter

from hub.app.demo.plant.machine import ABORTED, EXECUTE, HELD, IDLE, ROLLOVER, STARTING, STOPPED, machines

NEXT: dict[object, set[int]] = {
    IDLE: {STARTING}, STARTING: {EXECUTE}, EXECUTE: {HELD, STOPPED, ABORTED}, HELD: {STARTING}, STOPPED: {STARTING}, ABORTED: {STOPPED},
}  # fmt: skip


def changes(seed: int, seconds: float = 3 * 3600, step_s: float = 0.5) -> list[tuple[str, str, object]]:
    """What changed in some hours: machine, name, value."""
    plant = machines(seed, {"WINDER-1": [("MO-1", "L1")], "PRESS-2": [("MO-2", "L2")]})
    steps = int(seconds / step_s)
    return [(machine.name, name, value) for _ in range(steps) for machine in plant for name, value in machine.step(step_s).items()]


def test_the_same_seed_does_the_same() -> None:
    assert changes(7, 600) == changes(7, 600)
    assert changes(7, 600) != changes(8, 600)


def test_states_follow_one_another_as_packml_has_them_and_parts_are_only_made_at_work() -> None:
    states: dict[str, object] = {}
    parts = Counter[str]()
    for machine, name, value in changes(7):
        if name == "State":
            assert value in NEXT[states.get(machine, IDLE)]
            states[machine] = value
        elif name in ("Parts", "Scrap"):
            parts[machine] += 1
            assert states[machine] in (EXECUTE, HELD, STOPPED, ABORTED)  # the last part is counted in the step that ends the work
    assert min(parts.values()) > 300


def test_after_a_power_cut_no_counter_stands_higher_than_before() -> None:
    assert {machine.values[name] for machine in machines(7, cut=True) for name in ("Parts", "Scrap")} == {0}


def test_counters_count_by_one_and_roll_over() -> None:
    plant = machines(7)
    for machine in plant:
        seen, last = [], machine.values["Parts"]
        for _ in range(20_000):
            value = machine.step(0.5).get("Parts")
            if value is not None:
                assert value == (last + 1) % ROLLOVER
                seen.append(value)
                last = value
        assert 0 in seen


def test_orders_come_one_after_the_other_and_limits_are_passed_now_and_then() -> None:
    found = changes(7, 8 * 3600, 2.0)
    assert {value for _, name, value in found if name == "Order"} == {"MO-1", "MO-2"}
    warm = [value for _, name, value in found if name == "Temperature" and isinstance(value, float)]
    assert 90 < max(warm) < 100
    assert 20 < min(warm) < 26
