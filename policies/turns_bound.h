#pragma once
#include "policies/optimum.h"

namespace epsim {

/// Seconds that a layer takes at least because ranks do things in turn: all rows to a rank's experts come, the experts compute, one call after another, and all their results leave. Holds of every placement into the demand's slots and of
/// every replica rule (with `Demand::in_turn`, of those that deal so), where experts wait for all rows (`Demand::experts_wait`) and ways are known (MachineCuts::there). An expert is *whole* where one rank computes all its copies; s slots beyond one an expert make s calls more at most,
/// and no more than 2 s calls are of experts that are not whole. What a rank waits for:
/// - Rows whose homes are not `nearer` than an Approach all have its latency before them, and pass the rank's own links one after another; results likewise. For an expert, the rank and the approaches are taken that are best and worst for it.
/// - Rows are all copies but those of the rank's own tokens (here: of all that are nearer) and those that share a row with another copy, of which a rank has no more than its experts have tokens in common (`Demand::together`); either
///   expert of a pair is credited with a half. A replica shares rows with as many experts again, and lets some rank more keep
///   what is near it. Dealt in turn, it is known for so many replicas of an expert which copies each of them computes, so each is taken where least is far from it, with its own call; for very many replicas, all of them together keep no
///   more than the best would keep alone, but for one copy a home and replica.
/// The arguments:
/// - `all in turn`: the mean over ranks of entering, computing, leaving and the latency of an approach. Ranks whose experts are all replicated, or are not wanted from afar, have no latency to wait for: an expert's slots make as many such ranks at
///   most, dealt in turn only those slots whose copies all come from near. A replica is a call more, and slots for replicas are few (a price for each, as dual of that), so the best number of replicas is taken, expert by expert; but never so few that a call alone would take longer than the bound.
/// - `calls and waits`: A experts that tokens want are A calls at least. With q = ceil(A / R), R the ranks with slots, either some rank makes q + 1 calls, or A + z - (q - 1) R ranks make q calls each when z replicas are used. The lightest
///   experts and the shortest waits are taken for them, the mean over these ranks or the one that waits longest, and the best z.
///   Where rows cross to nodes once, the rank of an expert waits at least until the expert's own rows have entered its node, by each of the node's ranks at once, and have then passed the rank's links one after another; its results likewise.
/// - `company`: without spare slots the h heaviest experts lie on h ranks, or two of them on one, together with the lightest of the others. They are heavy by computing, with rows or with waits.
/// - `configurations`: without spare slots and with few experts, which sets of them a rank has room for (policies/configuration_bound.h).
///   With slots to spare let q be the fewest experts that the rank with most of them computes. Either some rank computes q + 1, whole or in parts, where z slots compute beside one an expert, and all ranks have the mean that goes with z.
///   Or none does: then all experts are whole, and the bounds without spare slots hold with q a rank; or z slots compute beside one an expert, no more than the z heaviest are in parts, and `company` and `calls and waits` hold of the others.
/// - `crossing in turn`: where rows cross to nodes once, the mean over ranks of what enters their node by them, computing, and what leaves by them (policies/crossing_bound.h).
///   Where all ranks of a node have experts that tokens want that enter the node by each of its ranks, any of them waits for what enters by the next one; so do their results. Without spare slots a layer that takes
///   no longer than t leaves no node with more copies than it can take in, compute and give back by t; so spread, tokens cross more often. Where that takes longer than t, so does the layer.
/// O(A R (homes nearer than an approach) + A log A) for each approach.
Certificate turns_bound(const Demand& demand, const MachineCuts& cuts);

}  // namespace epsim
