#!/usr/bin/env python3
"""Recomputes routers, capacities and losses with NumPy, in double precision and from their formulas, and compares.

routers.py EPSIM FOLDER [CASES]: draws as many cases (100) of random sizes and settings, lets `epsim route` compute them in FOLDER, and compares: choices, what is kept and capacities exactly, weights and gradients to 2e-6 of
the largest element (the importance loss's to 1e-5), losses to 1e-5. Exit status 1 if they differ, 77 without NumPy. Written from docs/routing.md and the frameworks' formulas alone.
"""
import math
import subprocess
import sys

try:
    import numpy as np
except ImportError:
    print("skipped: no NumPy")
    sys.exit(77)

STEP = 1e-30  # of an imaginary number: a derivative without a difference


def softmax(v):
    top = v.real.max(-1, keepdims=True)
    e = np.exp(v - np.where(np.isfinite(top), top, 0))
    return e / e.sum(-1, keepdims=True)


sigmoid = lambda v: 1 / (1 + np.exp(-v))


def sqrt_softplus(v):
    plain = np.logaddexp(0, v.real)
    return np.sqrt(plain + 1j * sigmoid(v.real) * v.imag) if np.iscomplexobj(v) else np.sqrt(plain)


SCORES = {"softmax_before": softmax, "softmax_after": softmax, "softmax": softmax, "sigmoid": sigmoid, "sqrt_softplus": sqrt_softplus}


def best(scores, k):
    """The k largest of each row, ties to the lowest id."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :k]


def at(values, ids):
    return np.where(ids < 0, 0, np.take_along_axis(values, np.maximum(ids, 0), 1))


def weights(logits, ids, score="softmax_before", renormalise=True, norm=1, scale=1, idle=None, **_):
    counts = (ids >= 0) if idle is None else ~idle
    if score == "softmax_after":
        w = np.where(counts, at(logits, ids), -np.inf)
        w = np.where(counts.any(1, keepdims=True), softmax(np.where(counts.any(1, keepdims=True), w, 0)), 0)
    else:
        w = np.where(counts, at(SCORES[score](logits), ids), 0)
        if renormalise:
            size = (w**norm).sum(-1, keepdims=True)
            w = w / np.where(size == 0, 1, size) ** (1 / norm)
    return w * scale


def route(name, o, logits, k, bias):
    """Ids and, as a function of logits, weights."""
    tokens, columns = logits.shape
    score = o.get("score", "sigmoid" if name in ("grouped_topk", "quantile", "hash") else "softmax_before")
    s = logits if bias is None else SCORES[score](logits).astype("f4") + bias
    settings = dict(o, score=score)
    if name == "grouped_topk" and o["groups_kept"] < o["groups"]:
        s = SCORES[score](logits) + (0 if bias is None else bias)
        groups = s.reshape(tokens, o["groups"], -1)
        of_group = np.sort(groups, -1)[..., ::-1][..., : {"top2": 2, "max": 1, "share": k // o["groups_kept"]}[o["group_score"]]].sum(-1)
        kept = np.zeros((tokens, o["groups"]), bool)
        np.put_along_axis(kept, best(of_group, o["groups_kept"]), True, 1)
        s = np.where(kept[..., None], groups, 0 if o["masked"] == "zero" else -np.inf).reshape(tokens, columns)
    if name == "moge":
        n = columns // o["groups"]
        ids = np.concatenate([best(s[:, g * n : g * n + n], k // o["groups"]) + g * n for g in range(o["groups"])], 1)
        ids = np.take_along_axis(ids, np.lexsort((ids, -at(s, ids)), axis=-1), 1)
        settings = o
    elif name == "top_p":
        ids = best(s, columns)
        ids = np.where(np.arange(columns) <= (np.cumsum(at(softmax(logits), ids), 1) <= o["p"]).sum(1)[:, None], ids, -1)
        settings = dict(renormalise=False)
    elif name == "expert_choice":
        size = math.ceil(tokens * o["factor"] / columns)
        size = min(size + -size % o["multiple"], tokens)
        p = softmax(logits)
        taken = np.zeros(p.shape, bool)
        np.put_along_axis(taken, np.argsort(-p, axis=0, kind="stable")[:size], True, 0)
        ids = best(np.where(taken, p, -1), columns)
        ids = np.where(np.take_along_axis(taken, ids, 1), ids, -1)
        settings = dict(renormalise=False)
    elif name == "sinkhorn":
        cost, column, change = np.exp(logits), np.ones(columns), 1.0
        while change > 1e-4:
            before = column
            row = 1 / tokens / ((column * cost).sum(1) + 1e-8)
            column = 1 / columns / ((row[:, None] * cost).sum(0) + 1e-8)
            change = np.abs(before - column).mean()
        ids = best(column * cost * row[:, None], k)
        settings = dict(score="sigmoid" if k == 1 else "softmax", renormalise=False)
    elif name == "quantile":
        beta = np.zeros(columns, "f4")
        for _ in range(o["steps"] if k < columns else 0):
            alpha = -np.sort(-(logits.astype("f4") - beta), 1)[:, k]
            beta = -np.sort(-(logits.astype("f4") - alpha[:, None]), 0)[min(tokens * k // columns, tokens - 1)]
        ids = best(logits.astype("f4") - beta, k)
    else:
        ids = best(s, k)
    if name == "zero_experts":
        first = columns - o["zero"] - o["identity"]
        settings["idle"] = (ids >= first) & (ids < first + o["zero"])
    if name == "phimoe":
        near, left = [], np.ones(logits.shape, bool)
        for j in range(k):
            top = at(logits, ids[:, j : j + 1])
            near.append(left & ~(top - logits > 2 * o["jitter"] * np.maximum(np.abs(logits), top)))
            left = left & (np.arange(columns) != ids[:, j : j + 1])
        return ids, lambda v: np.concatenate([at(softmax(np.where(m, v, -np.inf)), ids[:, j : j + 1]) for j, m in enumerate(near)], 1)
    return ids, lambda v: weights(v, ids, **settings)


def capacity(name, o, tokens, experts, k, ranks, counts):
    f = o.get("factor", 1)
    if name == "megatron":
        return math.ceil(tokens * k / experts * f)
    if name == "deepspeed":
        return max(math.ceil(np.float32(tokens / experts) * np.float32(f * k)), 4)
    if name == "tutel":
        size, need = k * int(f * -(-tokens // experts)), int(counts.max())
        return {"fixed": size, "needed": need, "at_most": min(size, need)}[o["limit"]]
    if name == "fastmoe":
        return {"gshard": math.ceil(f * tokens) * k // experts, "switch": math.ceil(f * tokens / experts), "dc": math.ceil(f * tokens / ranks)}[o["gate"]]
    if name == "megablocks":
        return int(f * (tokens * k * (k if o["form"] == "moe_ep" else 1) / experts)) or int(counts.max())
    if name == "mesh_tf":
        return max(min(tokens, int(tokens * f / experts)), 4)
    if name == "flaxformer":
        return max(round(f * tokens / experts), 4)
    if name == "vmoe":
        size = math.ceil(tokens * k * f / experts)
        return size + -size % 4
    if name == "maxtext":
        return int(max(math.ceil(tokens * k / experts) * f, f))
    return k * -(-tokens // experts)  # nllb


def keep(name, o, ids, weight, best_of_token, experts, ranks):
    """What is kept, and the capacity of each block of tokens that share one."""
    tokens, k = ids.shape
    kept, sizes, shared = ids >= 0, [], name == "megablocks" or o.get("gate") in ("switch", "dc")
    if name == "dropless":
        return kept, sizes
    order = o.get("order") or {"megatron": "probability", "fastmoe": "position", "maxtext": "position", "megablocks": "position"}.get(name, "choice")
    for rank in range(1 if shared else ranks):
        of_rank = tokens if shared else tokens // ranks
        group = o.get("group", of_rank)
        for first in range(rank * of_rank, (rank + 1) * of_rank, group):
            last = min(first + group, (rank + 1) * of_rank)
            queue = [(t, j) for t in range(first, last) for j in range(k) if 0 <= ids[t, j] < experts]
            queue.sort(key={"position": lambda c: c, "choice": lambda c: (c[1], c[0]), "priority": lambda c: (c[1], -best_of_token[c[0]], c[0]), "probability": lambda c: (-weight[c], c[0])}[order])
            used = np.zeros(experts, int)
            counts = np.bincount([ids[c] for c in queue], minlength=experts)
            sizes.append(capacity(name, o, last - first, experts, k, ranks, counts))
            for c in queue:
                kept[c] = used[ids[c]] < sizes[-1]
                used[ids[c]] += 1
    return kept, sizes


def losses(logits, ids, kept, weigh, mask):
    """Values and gradients of the losses that are asked for below."""
    tokens, columns = logits.shape
    counted = mask.astype(float)

    def gradient(f, slope):
        out = np.zeros(logits.shape)
        for e in range(columns):
            out[:, e] = (f(logits + 1j * STEP * (np.arange(columns) == e)).imag / STEP * slope).sum(1)
        return out

    made = (ids >= 0) & mask[:, None]
    share = np.bincount(ids[made & kept], minlength=columns) / max(made.sum(), 1)
    slope = columns * share[None] * counted[:, None] / counted.sum()
    out = {"balance": ((softmax(logits) * slope).sum(), gradient(softmax, slope))}
    top = logits.max(1, keepdims=True)
    lse = lambda v: np.log(np.exp(v - top).sum(1, keepdims=True)) + top
    out["z"] = ((lse(logits) ** 2 * counted[:, None]).sum() / counted.sum(), gradient(lse, 2 * lse(logits) * counted[:, None] / counted.sum()))
    if columns > 1:
        sums = np.bincount(ids[made], weigh(logits)[made], minlength=columns)
        mean, spread = sums.mean(), sums.var(ddof=1)
        slope = 2 * (sums - mean) / (columns - 1) / mean**2 - 2 * spread / mean**3 / columns
        out["importance"] = (spread / mean**2, gradient(weigh, np.where(made, slope[np.maximum(ids, 0)], 0)))
    return out


def draw(rng):
    """One case: sizes, a router and a capacity with settings, a few of them always the defaults."""
    pick = lambda *of: of[rng.integers(len(of))]
    columns, ranks = pick(1, 2, 4, 6, 8, 15, 16, 33, 64), pick(1, 1, 2, 3)
    k, tokens = int(rng.integers(1, min(columns, 6) + 1)), ranks * int(rng.integers(1, 80))
    name = pick("topk", "topk", "grouped_topk", "gshard", "phimoe", "moge", "top_p", "zero_experts", "expert_choice", "sinkhorn", "quantile", "noisy_topk")
    o, experts = {}, columns
    divisors = [d for d in range(1, columns + 1) if columns % d == 0]
    if name in ("topk", "grouped_topk", "zero_experts", "quantile"):
        o["score"] = pick("softmax_before", "sigmoid", "sqrt_softplus", "softmax_after") if name in ("topk", "quantile") else pick("softmax", "sigmoid", "sqrt_softplus")
        o["scale"], o["renormalise"] = pick(1, 2.5), bool(pick(0, 1)) or o["score"] == "softmax_after"
        if o["renormalise"] and o["score"] != "softmax_after":
            o["norm"] = pick(1, 1, 2)
    if name == "grouped_topk":
        o["groups"], o["group_score"], o["masked"] = pick(*divisors), pick("top2", "max", "share"), pick("zero", "minus_infinity")
        o["groups_kept"] = int(rng.integers(-(-k * o["groups"] // columns), o["groups"] + 1))
        if o["group_score"] == "share" and k % o["groups_kept"]:
            return draw(rng)
    k = 2 if name == "gshard" else k
    if name == "phimoe":
        o["jitter"] = pick(0.01, 0.3)
    if name == "moge":
        o["groups"], o["renormalise"] = pick(*[d for d in divisors if k % d == 0]), bool(pick(0, 1))
    if name == "top_p":
        o["p"] = pick(0.1, 0.4, 0.9)
    if name == "zero_experts":
        o["zero"], o["identity"] = pick(1, 2), pick(0, 1, 2)
        experts -= o["zero"] + o["identity"]
    if name == "expert_choice":
        o["factor"], o["multiple"] = pick(0.5, 1, 1.1, 2), pick(1, 4)
    if name == "quantile":
        o["steps"] = pick(0, 1, 4)
    if experts < 1 or k > columns:
        return draw(rng)
    part = pick("dropless", "megatron", "deepspeed", "tutel", "fastmoe", "megablocks", "mesh_tf", "flaxformer", "vmoe", "maxtext", "nllb")
    c = {} if part in ("dropless", "nllb") else {"factor": pick(0.25, 0.5, 1, 1.1, 1.25)}
    orders = {"megatron": ("probability", "position"), "deepspeed": ("choice", "probability", "position"), "tutel": ("choice", "priority"), "flaxformer": ("choice", "priority"), "vmoe": ("choice", "priority"), "nllb": ("choice", "priority")}
    if part in orders:
        c["order"] = pick(*orders[part])
    if part == "tutel" and pick(0, 1):
        c["limit"] = pick("needed", "at_most")
        c = {"limit": "needed", "order": c["order"]} if c["limit"] == "needed" else c
    elif part == "tutel":
        c["limit"] = "fixed"
    c |= {"gate": pick("gshard", "switch", "dc")} if part == "fastmoe" else {"form": pick("moe", "moe_ep")} if part == "megablocks" else {}
    if part in ("mesh_tf", "flaxformer", "vmoe", "maxtext"):
        c["group"] = int(rng.integers(1, tokens // ranks + 1))
    bias = (rng.integers(-8, 9, columns) / 8).astype("f4") if name in ("topk", "grouped_topk", "zero_experts") and pick(0, 0, 1) else None
    return name, o, part, c, tokens, columns, experts, k, ranks, bias


def said(settings):
    return "{" + ", ".join(f"{key}: {str(v).lower() if isinstance(v, bool) else v}" for key, v in settings.items()) + "}"


def main(epsim, folder, cases):
    worst = {}
    for case in range(cases):
        rng = np.random.default_rng([1, case])
        name, o, part, c, tokens, columns, experts, k, ranks, bias = draw(rng)
        logits = (np.round(rng.standard_normal((tokens, columns)) * 64) / 64).astype("f4") if case % 4 else rng.standard_normal((tokens, columns)).astype("f4")  # mostly with ties
        mask = rng.random(tokens) < (0.7 if case % 3 == 0 else 1.1)
        mask[0] = True
        arrays = {"logits": logits, "attention_mask": mask.astype("i4")} | ({} if bias is None else {"bias": bias})
        np.savez(f"{folder}/in.npz", **arrays)
        count = "kept" if case % 5 == 0 else "all"
        settings = [f"top_k={k}", f"ranks={ranks}", f"training={str(name == 'sinkhorn').lower()}", f"router={{{name}: {said(o)}}}", f"capacity={{{part}: {said(c)}}}", f"losses=[{{balance: {{count: {count}}}}}, z" + (", importance]" if columns > 1 else "]")]
        done = subprocess.run([epsim, "route", "--logits", f"{folder}/in.npz", "--out", f"{folder}/out.npz"] + [a for s in settings for a in ("--set", s)], capture_output=True, text=True)
        where = f"case {case}: T {tokens}, {' '.join(settings)}"
        if name == "noisy_topk":  # without noise
            o = {"score": "softmax_after"}
        if done.returncode:
            sys.exit(f"FAILED: {where}\n{done.stderr}")
        out, exact = dict(np.load(f"{folder}/out.npz")), logits.astype(float)
        each = tokens // ranks if name in ("expert_choice", "sinkhorn", "quantile") else tokens
        if each < tokens:
            ids = np.concatenate([route(name, o, exact[a : a + each], k, bias)[0] for a in range(0, tokens, each)])
            kind = {"expert_choice": dict(renormalise=False), "sinkhorn": dict(score="sigmoid" if k == 1 else "softmax", renormalise=False)}.get(name, o)
            weigh = lambda v: weights(v, ids, **kind)
        else:
            ids, weigh = route(name, o, exact, k, bias)
        weight = weigh(exact)
        plain = o.get("renormalise", True) is False or name in ("top_p", "expert_choice", "sinkhorn", "phimoe") or (name == "moge" and not o["renormalise"])
        best_of_token = (out["weights"] if plain else at(SCORES[o.get("score", "softmax")](exact), ids).astype("f4")).max(1)
        kept, sizes = keep(part, c, ids, out["weights"], best_of_token, experts, ranks)
        after = np.where(kept, weight, 0)
        if (part == "deepspeed" and k > 1) or part == "nllb":
            after = after / np.maximum(after.sum(1, keepdims=True), np.finfo("f4").eps)
        for array, expected in (("expert_ids", ids), ("kept", kept), ("capacity", np.array(sizes, int))):
            if out[array].shape != expected.shape or not (out[array] == expected).all():
                sys.exit(f"FAILED: {where}\n{array} differs")
        compared = {"weights": weight, "weights_after": after}
        for loss, (value, slope) in losses(exact, ids, kept if count == "kept" else ids >= 0, weigh, mask).items():
            if abs(out[loss] - value) > 1e-5 * abs(value) + 1e-9:
                sys.exit(f"FAILED: {where}\n{loss} is {out[loss]}, expected {value}")
            compared[f"grad_{loss}"] = slope
        for array, expected in compared.items():
            off = np.abs(out[array] - expected).max() / max(np.abs(expected).max(), 1e-6)
            worst[array] = max(worst.get(array, 0), off)
            if not off <= (1e-5 if array == "grad_importance" else 2e-6):  # there sums of float32 weights less their mean cancel
                sys.exit(f"FAILED: {where}\n{array} differs by {off:.1e} of its largest element")
    print(f"{cases} cases agree;", ", ".join(f"{array} to {off:.1e}" for array, off in worst.items()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 100)
