#!/usr/bin/env python3
"""Recomputes an MoE layer with NumPy, in double precision and from the formulas, and compares.

moe_layer.py DUMP.npz [KEY=VALUE]...       what `epsim execute --dump` wrote: y from x, the experts and the choices, and with --backward the gradients
moe_layer.py INPUTS.npz OUT.npz [KEY=VALUE]...  what `epsim layer` read and wrote: y, and the gradients of sum(y * r) that do not pass the router

Keys: activation (swiglu), weigh (output), and zero, identity and constant (0): experts that compute nothing, behind the others. Gradients through the router (dgate, dlinear_bias and their share of dx) are
recomputed for score=softmax_after, where a token's weights are a softmax over the logits of its choices. Exit status 1 if they differ, 77 without NumPy.
"""
import math
import sys

try:
    import numpy as np
except ImportError:
    print("skipped: no NumPy")
    sys.exit(77)

TOLERANCE = 2e-6  # of the largest element: float32 against double


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def activation(name, g, u):
    """Gives (a, da/dg, da/du)."""
    if name == "clamped_swiglu":
        x, v = np.minimum(g, 7), np.clip(u, -7, 7)
        s = sigmoid(1.702 * x)
        return (v + 1) * x * s, np.where(g <= 7, (v + 1) * (s + 1.702 * x * s * (1 - s)), 0), np.where(np.abs(u) <= 7, x * s, 0)
    if name == "swiglu":
        s = sigmoid(g)
        f, slope = g * s, s + g * s * (1 - s)
    elif name == "gelu":
        p = np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2)(g) if g.size else g
        f, slope = g * p, p + g * np.exp(-g * g / 2) / math.sqrt(2 * math.pi)
    elif name == "gelu_tanh":
        c = math.sqrt(2 / math.pi)
        t = np.tanh(c * (g + 0.044715 * g**3))
        f, slope = g * (1 + t) / 2, (1 + t) / 2 + g * (1 - t * t) / 2 * c * (1 + 3 * 0.044715 * g * g)
    elif name == "relu":
        f, slope = np.maximum(g, 0), (g > 0).astype(float)
    else:
        sys.exit(f"no activation {name}")
    return (f, slope, None) if u is None else (f * u, slope * u, f)


class Expert:
    """One expert, from arrays named prefix + w1 and so on; `which` is its place in them."""

    def __init__(self, arrays, prefix, which=None):
        def take(name):
            a = arrays.get(prefix + name)
            return None if a is None else a if which is None else a[which]

        self.p = {n: take(n) for n in ("w1", "w3", "w2", "b1", "b3", "b2")}

    def run(self, name, x, dy):
        """y, dx and the gradients of the weights, for rows x and the gradient dy of each row's result."""
        p = self.p
        g = x @ p["w1"] + (0 if p["b1"] is None else p["b1"])
        u = None if p["w3"] is None else x @ p["w3"] + (0 if p["b3"] is None else p["b3"])
        a, a_g, a_u = activation(name, g, u)
        y = a @ p["w2"] + (0 if p["b2"] is None else p["b2"])
        da = dy @ p["w2"].T
        dg = da * a_g
        grads = {"w1": x.T @ dg, "b1": dg.sum(0), "w2": a.T @ dy, "b2": dy.sum(0)}
        dx = dg @ p["w1"].T
        if u is not None:
            du = da * a_u
            grads.update(w3=x.T @ du, b3=du.sum(0))
            dx += du @ p["w3"].T
        return y, dx, grads


def layer(inputs, given, weights, options):
    ids, kept, chosen_weights = given["expert_ids"], given["kept"], given["weights"]
    name, on_input = options.get("activation", "swiglu"), options.get("weigh", "output") == "input"
    a = {k: v.astype(np.float64) for k, v in inputs.items() if v.dtype.kind == "f"}
    x = a["x"]
    r = a.get("r", np.zeros_like(x))
    out = {"y": np.zeros_like(x), "dx": np.zeros_like(x)}
    dweight = np.zeros(weights.shape)
    for k in a:
        if k.removeprefix("shared_") in ("w1", "w3", "w2", "b1", "b3", "b2") or k in ("shared_gate", "constant", "constant_gate"):
            out["d" + k] = np.zeros_like(a[k])
    for e in range(a["w1"].shape[0]):
        t, j = np.nonzero((ids == e) & (kept != 0))
        w = weights[t, j].astype(np.float64)[:, None]
        y, dx, grads = Expert(a, "", e).run(name, x[t] * w if on_input else x[t], r[t] if on_input else w * r[t])
        np.add.at(out["y"], t, y if on_input else w * y)
        np.add.at(out["dx"], t, w * dx if on_input else dx)
        dweight[t, j] = (dx * x[t]).sum(1) if on_input else (y * r[t]).sum(1)
        for k, v in grads.items():
            if "d" + k in out:
                out["d" + k][e] = v
    first = a["w1"].shape[0] + int(options.get("zero", 0))  # zero experts give nothing
    copies, constants = int(options.get("identity", 0)), int(options.get("constant", 0))
    for e in range(first, first + copies + constants):
        t, j = np.nonzero((ids == e) & (kept != 0))
        w, i = weights[t, j].astype(np.float64)[:, None], e - first - copies
        if i < 0:
            y, dx = x[t], r[t]
        else:
            v, matrix = a["constant"][i], a["constant_gate"][i]
            logits = np.exp(x[t] @ matrix)
            share = logits / logits.sum(1, keepdims=True)
            y = share[:, :1] * x[t] + share[:, 1:] * v
            dshare = np.stack([(r[t] * x[t]).sum(1), r[t] @ v], 1)
            dlogits = w * share * (dshare - (share * dshare).sum(1, keepdims=True))
            dx = share[:, :1] * r[t]
            np.add.at(out["dx"], t, dlogits @ matrix.T)
            out["dconstant"][i] = (w * share[:, 1:] * r[t]).sum(0)
            out["dconstant_gate"][i] = x[t].T @ dlogits
        np.add.at(out["y"], t, w * y)
        np.add.at(out["dx"], t, w * dx)
        dweight[t, j] = (y * r[t]).sum(1)
    if "shared_w1" in a:
        gate = a.get("shared_gate")
        s = np.ones((len(x), 1)) if gate is None else sigmoid(x @ gate.reshape(-1, 1))
        y, dx, grads = Expert(a, "shared_").run(name, x, s * r)
        out["y"] += s * y
        out["dx"] += dx
        for k, v in grads.items():
            if "dshared_" + k in out:
                out["dshared_" + k] = v
        if gate is not None:
            ds = (y * r).sum(1, keepdims=True) * s * (1 - s)
            out["dshared_gate"] = (x.T @ ds).reshape(gate.shape)
            out["dx"] += ds @ gate.reshape(1, -1)
    if options.get("score") == "softmax_after":
        w = chosen_weights.astype(np.float64)  # dropped choices have their share of the softmax
        dlogit = w * (dweight - (w * dweight).sum(1, keepdims=True))
        dlogits = np.zeros((len(x), a["gate"].shape[1]))
        np.add.at(dlogits, (np.arange(len(x))[:, None], ids), dlogit)
        out["dgate"] = x.T @ dlogits
        out["dlinear_bias"] = dlogits.sum(0)
        out["dx"] += dlogits @ a["gate"].T
    else:
        if "dgate" in given or "d_weight" not in given:
            del out["dx"]
    out["d_weight"] = dweight
    return out


def main():
    arguments = [a for a in sys.argv[1:] if "=" not in a]
    options = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    inputs = dict(np.load(arguments[0]))
    given = dict(np.load(arguments[-1]))
    weights = given.get("weights_after", given["weights"])
    ours = layer(inputs, given, weights, options)
    worst = {}
    for name, value in ours.items():
        if name in given and (name == "y" or "r" in inputs):
            worst[name] = np.abs(given[name] - value).max() / max(np.abs(value).max(), 1e-30)
    for name, error in worst.items():
        print(f"{name:14} {error:.1e}")
    bad = [name for name, error in worst.items() if not error <= TOLERANCE]
    if bad:
        sys.exit("FAILED: " + ", ".join(bad))


if __name__ == "__main__":
    main()
