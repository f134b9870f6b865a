#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "base/check.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "policies/migration.h"
#include "policies/placement/shared/layer_guess.h"
#include "policies/placement/shared/recent.h"
#include "policies/placement/shared/resample.h"
#include "policies/placement/shared/slots.h"

namespace epsim::parts_placement {
namespace {

constexpr const char* kSelf = "epsim_opt";
constexpr double kWorthIt = 0.998;  ///< a gain below this share is taken: smaller ones on the batches that are shown are mostly fitted to them

struct Settings {
  std::int64_t slots = 0;             ///< 0: one an expert
  std::int64_t rank_slots = 0;        ///< places of each rank; 0: the slots are spread evenly
  std::int64_t moves = 0;             ///< tried on each placement that is improved
  std::int64_t refined = 0;           ///< placements of others that are improved
  std::optional<std::int64_t> polished;  ///< changes that are tried by simulation; nothing: as many as do not take long
  std::optional<std::int64_t> budget; ///< experts that may move between ranks, a layer
  std::vector<std::string> seeds;     ///< policies to begin with
  bool generalise = true;             ///< whether batches that are not shown count
  Shape shape;
};

std::int64_t slots_of(const Problem& problem, const Settings& settings) { return settings.slots ? settings.slots : problem.experts; }

/// First place of each rank: [R+1]. There may be more places than slots.
std::vector<std::int32_t> places_of(const Problem& problem, const Settings& settings) {
  return spread_slots(settings.rank_slots ? settings.rank_slots * problem.ranks : slots_of(problem, settings), problem.ranks);
}

/// The experts of each place, kEmpty behind a rank's last slot; nothing where a rank has more slots than places.
std::optional<std::vector<int>> table_of(const Placement& p, std::span<const std::int32_t> first) {
  std::vector<int> table(static_cast<std::size_t>(first.back()), LayerGuess::kEmpty);
  for (std::size_t r = 0; r + 1 < first.size(); ++r) {
    const std::int32_t slots = p.first_slot[r + 1] - p.first_slot[r];
    if (slots > first[r + 1] - first[r]) return {};
    for (std::int32_t i = 0; i < slots; ++i) table[static_cast<std::size_t>(first[r] + i)] = p.expert_of_slot[static_cast<std::size_t>(p.first_slot[r] + i)];
  }
  return table;
}

/// The placement of a table: empty places are left out.
Placement placement_of(const std::vector<int>& table, std::span<const std::int32_t> first, int experts) {
  std::vector<std::uint16_t> expert_of_slot;
  std::vector<std::int32_t> first_slot = {0};
  for (std::size_t r = 0; r + 1 < first.size(); ++r) {
    for (std::int32_t p = first[r]; p < first[r + 1]; ++p)
      if (table[static_cast<std::size_t>(p)] != LayerGuess::kEmpty) expert_of_slot.push_back(static_cast<std::uint16_t>(table[static_cast<std::size_t>(p)]));
    first_slot.push_back(static_cast<std::int32_t>(expert_of_slot.size()));
  }
  return Placement::from_experts(std::move(expert_of_slot), std::move(first_slot), experts);
}

using Answer = std::vector<Placement>;  // [layers]

/// What the other policies answer to the problem, and the placement in force, by name. Those that do not fit the sizes or cannot see enough are left out.
std::map<std::string, Answer> answers(const Problem& problem, const Settings& settings) {
  const PlacementCatalog catalog = builtin_placements();
  std::map<std::string, Answer> all;
  if (!problem.previous.empty()) all.emplace("", problem.previous);
  for (const std::string& name : settings.seeds) {
    const auto make = [&](const std::string& yaml, Diagnostics& problems) { return catalog.make(parse_yaml(std::make_shared<SourceText>(SourceText{kSelf, yaml})), problems, &settings.shape); };
    // Replicas cost weights to read: fewer may be faster.
    const std::int64_t most = settings.slots > 0 ? settings.slots : settings.shape.experts, half = (settings.shape.experts + most) / 2 / problem.ranks * problem.ranks;
    for (const std::int64_t slots : std::set<std::int64_t>{settings.shape.experts, std::max<std::int64_t>(settings.shape.experts, half), most}) {
      Diagnostics problems, without_slots;
      PlacementPolicy policy = make(fmt::format("{}: {{slots: {}}}", name, slots), problems);
      if (problems.size() > 0) policy = make(name, without_slots);  // one that has a number of its own
      if (without_slots.size() > 0) continue;
      if (policy.sees == PlacementPolicy::Sees::tokens && problem.tokens.empty()) continue;
      if (policy.sees == PlacementPolicy::Sees::machine && !problem.topology) continue;
      try {
        all.emplace(fmt::format("{} {}", name, problems.size() > 0 ? 0 : slots), policy.place(problem));
      } catch (const InputError&) {  // sizes that this policy cannot place
      }
      if (problems.size() > 0) break;
    }
  }
  return all;
}

bool affordable(const Problem& problem, std::size_t layer, const Placement& p, const Settings& settings) {
  if (!settings.budget || problem.previous.empty() || !problem.topology) return true;
  return static_cast<std::int64_t>(migration(problem.previous[layer], p, *problem.topology).moves.size()) <= *settings.budget;
}

/// One layer: begins with the best of what others say and exchanges experts while the guess falls, or what is simulated.
class Search {
 public:
  Search(const Problem& problem, std::size_t layer, const Settings& settings, LayerGuess::Rows rows = LayerGuess::Rows::rank)
      : problem_(problem), layer_(layer), settings_(settings), first_(places_of(problem, settings)), rows_(rows) {}

  /// The row rule that it goes by: that which `run` found, once it has.
  LayerGuess::Rows rows() const { return rows_; }

  Placement run(const std::map<std::string, Answer>& seeds) {
    std::vector<Candidate> candidates;
    for (const auto& [name, answer] : seeds) {
      const Placement& p = answer[layer_];
      std::optional<std::vector<int>> table = table_of(p, first_);
      if (!table || p.slots() > slots_of(problem_, settings_) || !affordable(problem_, layer_, p, settings_)) continue;
      if (std::any_of(candidates.begin(), candidates.end(), [&](const Candidate& c) { return c.table == *table; })) continue;
      candidates.push_back({p, std::move(*table), 0});
    }
    if (candidates.empty()) {
      const std::vector<std::int32_t> even = spread_slots(slots_of(problem_, settings_), problem_.ranks);
      std::vector<int> experts(static_cast<std::size_t>(even.back()));
      for (std::size_t p = 0; p < experts.size(); ++p) experts[p] = static_cast<int>(p) % problem_.experts;
      const Placement in_order = placement_of(experts, even, problem_.experts);
      candidates.push_back({in_order, *table_of(in_order, first_), 0});
    }
    leave_out_slow(candidates);
    choose_rows(candidates);
    std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.seconds < b.seconds; });
    Candidate best = candidates.front();
    const std::size_t refined = std::min(candidates.size(), static_cast<std::size_t>(settings_.refined));
    for (std::size_t c = 0; c < refined; ++c) {
      std::vector<int> table = improve(candidates[c].table, c);
      Placement placement = placement_of(table, first_, problem_.experts);
      const double seconds = judge(placement);
      if (seconds < kWorthIt * best.seconds) best = {std::move(placement), std::move(table), seconds};
    }
    return best.placement;
  }

  /// Goes on by simulation alone, which knows what a guess leaves out. A change is kept where it makes batches faster; where others count than those shown, by more than the standard error of that, and also tokens dealt to batches anew (`more`).
  /// It is given up with the first batches that together lose by it.
  Placement polish(const Placement& from, std::span<const std::shared_ptr<const Routing>> more) const {
    constexpr double kCheap = 1.002;  // times the guess: what it says to cost more is not simulated
    constexpr std::int64_t kDrawn = 40;  // changes for each that is simulated, at most
    std::optional<std::vector<int>> table = table_of(from, first_);
    const std::int64_t most = tries();
    if (!table || problem_.ranks < 2 || most == 0) return from;
    std::vector<std::shared_ptr<const Routing>> judges = problem_.tokens[layer_];
    const std::size_t shown = judges.size();
    judges.insert(judges.end(), more.begin(), more.end());
    const auto n = static_cast<double>(judges.size());
    LayerGuess guess(problem_, layer_, first_, rows_, batches());
    guess.set(*table);
    Rng rng(problem_.seed, Stream::placement, std::uint64_t{1} << 34, static_cast<std::uint32_t>(problem_.layers[layer_]));
    Placement best = from;
    std::vector<double> seconds;  // of each batch
    for (const auto& batch : judges) seconds.push_back(problem_.batch_seconds(layer_, *batch, best));
    double now = guess.seconds();
    for (std::int64_t drawn = 0, tried = 0; drawn < kDrawn * most && tried < most; ++drawn) {
      if (!propose(guess, rng)) continue;
      const double guessed = guess.seconds();
      Placement changed = placement_of(guess.experts(), first_, problem_.experts);
      if (guessed > kCheap * now || !affordable(problem_, layer_, changed, settings_)) {
        guess.undo();
        continue;
      }
      ++tried;
      std::vector<double> gains;
      double gain = 0, squares = 0;
      for (std::size_t b = 0; b < judges.size() && (gain > 0 || (gain == 0 && b < shown)); ++b) gain += gains.emplace_back(seconds[b] - problem_.batch_seconds(layer_, *judges[b], changed));
      for (const double g : gains) squares += (g - gain / n) * (g - gain / n);
      const double error = settings_.generalise && n > 1 ? std::sqrt(squares / (n - 1) * n) : 0;
      if (gains.size() < judges.size() || gain <= error) {
        guess.undo();
        continue;
      }
      best = std::move(changed), now = guessed;
      for (std::size_t b = 0; b < seconds.size(); ++b) seconds[b] -= gains[b];
    }
    return best;
  }

 private:
  struct Candidate {
    Placement placement;
    std::vector<int> table;
    double seconds;
  };

  /// Leaves out what no row rule guesses to be near the best: a simulation costs more than a guess.
  void leave_out_slow(std::vector<Candidate>& candidates) const {
    constexpr double kNear = 1.2;
    std::vector<char> near(candidates.size());
    for (const LayerGuess::Rows rows : {LayerGuess::Rows::node, LayerGuess::Rows::rank, LayerGuess::Rows::copy}) {
      LayerGuess guess(problem_, layer_, first_, rows, batches());
      std::vector<double> seconds;
      for (const Candidate& c : candidates) guess.set(c.table), seconds.push_back(guess.seconds());
      const double least = *std::ranges::min_element(seconds);
      for (std::size_t c = 0; c < candidates.size(); ++c) near[c] |= !(seconds[c] > kNear * least);  // also where nothing can be guessed
    }
    std::vector<Candidate> kept;
    for (std::size_t c = 0; c < candidates.size(); ++c)
      if (near[c]) kept.push_back(std::move(candidates[c]));
    candidates = std::move(kept);
  }

  double judge(const Placement& p) const {
    if (problem_.batch_seconds) return problem_.layer_seconds(layer_, p);
    LayerGuess guess(problem_, layer_, first_, rows_, batches());
    guess.set(*table_of(p, first_));
    return guess.seconds();
  }

  /// Judges the candidates, and takes the row rule whose guesses differ from one to another as the judgements do: a policy is not told which exchange is in force.
  void choose_rows(std::vector<Candidate>& candidates) {
    for (Candidate& c : candidates) c.seconds = judge(c.placement);
    if (!problem_.batch_seconds) return;
    double least = std::numeric_limits<double>::infinity();
    for (const LayerGuess::Rows rows : {LayerGuess::Rows::node, LayerGuess::Rows::rank, LayerGuess::Rows::copy}) {
      LayerGuess guess(problem_, layer_, first_, rows, batches());
      double mean = 0, squares = 0;
      std::vector<double> off;
      for (const Candidate& c : candidates) {
        guess.set(c.table);
        off.push_back(guess.seconds() - c.seconds);
        mean += off.back() / static_cast<double>(candidates.size());
      }
      for (const double o : off) squares += (o - mean) * (o - mean);
      if (squares < least) least = squares, rows_ = rows;
    }
  }

  /// Threshold accepting (Dueck and Scheuer 1990): a change is kept where it costs less than a threshold that falls to nothing; the best table met is given back.
  std::vector<int> improve(const std::vector<int>& from, std::size_t number) const {
    constexpr double kThreshold = 0.004;  // of the time, at first
    LayerGuess guess(problem_, layer_, first_, rows_, batches());
    guess.set(from);
    Rng rng(problem_.seed, Stream::placement, (std::uint64_t{1} << 32) + number, static_cast<std::uint32_t>(problem_.layers[layer_]));
    double now = guess.seconds(), least = now;
    const double start = now;
    std::vector<int> best = from;
    if (problem_.ranks < 2) return best;
    for (std::int64_t i = 0; i < settings_.moves; ++i) {
      const double threshold = kThreshold * start * (1 - static_cast<double>(i) / static_cast<double>(settings_.moves));
      if (!propose(guess, rng)) continue;
      if (!keep(guess, now, threshold)) guess.undo();
      if (now < least) least = now, best = guess.experts();
    }
    return best;
  }

  /// Changes a table at random; false where what was drawn changes nothing or may not be.
  bool propose(LayerGuess& guess, Rng& rng) const {
    const auto places = static_cast<std::uint64_t>(first_.back());
    // Most changes begin where it hurts.
    const std::uint64_t kind = rng.below(8);
    int a = static_cast<int>(rng.below(places));
    if (kind < 4) a = on_rank(kind < 2 ? guess.slowest_rank() : guess.busiest_rank(), rng, a);
    const int at_a = guess.experts()[static_cast<std::size_t>(a)];
    if (kind == 7 || at_a == LayerGuess::kEmpty) {
      // Another copy of an expert, or none, in a place that can spare its own.
      if (at_a != LayerGuess::kEmpty && guess.copies(at_a) < 2) return false;
      const int other = guess.experts()[rng.below(places)];
      const int expert = rng.below(2) == 0 ? LayerGuess::kEmpty : other;
      if (expert == at_a || on_same_rank(guess, a, expert) || (at_a == LayerGuess::kEmpty && filled(guess) >= slots_of(problem_, settings_))) return false;
      guess.put(a, expert);
      return true;
    }
    const int b = static_cast<int>(rng.below(places));
    const int at_b = guess.experts()[static_cast<std::size_t>(b)];
    if (guess.rank_of_place(a) == guess.rank_of_place(b) || at_a == at_b || on_same_rank(guess, b, at_a) || on_same_rank(guess, a, at_b)) return false;
    guess.swap(a, b);
    return true;
  }

  bool keep(LayerGuess& guess, double& now, double threshold) const {
    const double changed = guess.seconds();
    if (changed >= now + threshold) return false;
    if (settings_.budget && !affordable(problem_, layer_, placement_of(guess.experts(), first_, problem_.experts), settings_)) return false;
    now = changed;
    return true;
  }

  std::int64_t tries() const {
    if (settings_.polished) return *settings_.polished;
    // A simulation costs about as much as its copies and several times its messages; of a second or two of them there is time.
    constexpr std::int64_t kMost = 1'000, kWork = 30'000'000;
    const Routing& batch = *problem_.tokens[layer_].front();
    return std::min(kMost, kWork / (1 + std::ssize(batch.expert) + 8 * std::int64_t{problem_.ranks} * problem_.ranks));
  }

  LayerGuess::Batches batches() const { return settings_.generalise ? LayerGuess::Batches::to_come : LayerGuess::Batches::shown; }

  static std::int64_t filled(const LayerGuess& guess) { return static_cast<std::int64_t>(guess.experts().size()) - std::ranges::count(guess.experts(), LayerGuess::kEmpty); }

  /// Whether the rank of a place holds an expert elsewhere than in that place: a second copy there helps nobody.
  bool on_same_rank(const LayerGuess& guess, int place, int expert) const {
    if (expert == LayerGuess::kEmpty) return false;
    const int r = guess.rank_of_place(place);
    for (std::int32_t p = first_[static_cast<std::size_t>(r)]; p < first_[static_cast<std::size_t>(r) + 1]; ++p)
      if (p != place && guess.experts()[static_cast<std::size_t>(p)] == expert) return true;
    return false;
  }

  int on_rank(int rank, Rng& rng, int otherwise) const {
    const std::int32_t begin = first_[static_cast<std::size_t>(rank)], end = first_[static_cast<std::size_t>(rank) + 1];
    return end > begin ? begin + static_cast<int>(rng.below(static_cast<std::uint64_t>(end - begin))) : otherwise;
  }

  const Problem& problem_;
  std::size_t layer_;
  const Settings& settings_;
  std::vector<std::int32_t> first_;
  LayerGuess::Rows rows_;
};

/// What the search says, and by which row rule each layer went.
struct Found {
  Answer answer;
  std::vector<LayerGuess::Rows> rows;  // [layers]
};

Found search(const Problem& problem, const std::map<std::string, Answer>& seeds, const Settings& settings) {
  Found found{Answer(problem.counts.size()), std::vector<LayerGuess::Rows>(problem.counts.size())};
  parallel_for(static_cast<std::int64_t>(found.answer.size()), [&](std::int64_t l) {
    const auto layer = static_cast<std::size_t>(l);
    Search search(problem, layer, settings);
    found.answer[layer] = search.run(seeds), found.rows[layer] = search.rows();
  });
  return found;
}

/// The answer improved by simulation alone, by the row rules that a search found.
Answer polished(const Problem& problem, const Answer& answer, const std::vector<LayerGuess::Rows>& rows, const Settings& settings) {
  constexpr std::int64_t kMixings = 8, kTokens = 1 << 20;  // of a layer, dealt anew
  const auto& batches = problem.tokens.front();
  std::int64_t tokens = 1;
  for (const auto& batch : batches) tokens += batch->tokens();
  const auto times = static_cast<int>(settings.generalise && batches.size() > 1 ? std::min(kMixings, kTokens / tokens) : 0);
  const Problem more = times > 0 ? mixed(problem, times) : Problem{};
  Answer placements(answer.size());
  parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
    const auto layer = static_cast<std::size_t>(l);
    const Search search(problem, layer, settings, rows[layer]);
    placements[layer] = times > 0 ? search.polish(answer[layer], more.tokens[layer]) : search.polish(answer[layer], {});
  });
  return placements;
}

// Ways to come to an answer besides taking a policy's: the search on the batches as they are, on their tokens mixed, and without replicas, whose gain is easily one of the batches shown alone.
constexpr const char* kSearch = "search";
constexpr const char* kLean = "search without replicas";
constexpr const char* kMixed = "mixed search";

/// How many times over the tokens of a problem are dealt to batches anew; 0 where they are so many that batches are alike anyway.
int mixings(const Problem& problem) {
  constexpr std::int64_t kTokens = 20'000;  // of a layer, all rounds
  std::int64_t tokens = 0;
  for (const auto& batch : problem.tokens.front()) tokens += batch->tokens();
  return static_cast<int>(std::min<std::int64_t>(4, kTokens / std::max<std::int64_t>(1, tokens)));
}

/// Whether an answer takes no more slots and moves than there may be.
bool fits(const Problem& problem, const Answer& answer, const Settings& settings) {
  const std::vector<std::int32_t> first = places_of(problem, settings);
  for (std::size_t l = 0; l < answer.size(); ++l)
    if (!affordable(problem, l, answer[l], settings) || !table_of(answer[l], first) || answer[l].slots() > slots_of(problem, settings)) return false;
  return true;
}

Settings settings_of(const std::string& way, const Settings& settings) {
  Settings of_way = settings;
  if (way == kLean) of_way.slots = 0;
  return of_way;
}

/// What a way says to a problem, where `seeds` are the policies' answers; where it has none that fits, what the search says.
Answer answer_by(const std::string& way, const Problem& problem, const std::map<std::string, Answer>& seeds, const Settings& settings) {
  if (way == kMixed) return search(mixed(problem, std::max(1, mixings(problem))), seeds, settings).answer;
  if (const auto of_policy = seeds.find(way); of_policy != seeds.end() && fits(problem, of_policy->second, settings)) return of_policy->second;
  return search(problem, seeds, settings_of(way, settings)).answer;
}

/// What each way to an answer says to a problem, and the row rules that its search found.
struct Ways {
  std::map<std::string, Answer> answers;
  std::vector<LayerGuess::Rows> rows;
};

Ways ways(const Problem& problem, const Settings& settings) {
  const std::map<std::string, Answer> seeds = answers(problem, settings);
  Found found = search(problem, seeds, settings);
  Ways all{seeds, std::move(found.rows)};
  std::erase_if(all.answers, [&](const auto& way) { return !fits(problem, way.second, settings); });
  all.answers.emplace(kSearch, std::move(found.answer));
  if (slots_of(problem, settings) > problem.experts) all.answers.emplace(kLean, answer_by(kLean, problem, seeds, settings));
  if (mixings(problem) > 0) all.answers.emplace(kMixed, answer_by(kMixed, problem, seeds, settings));
  return all;
}

/// Two halves of the batches: every other one where all of them tell of the future; where only the `recent` last do, these and as many before them, for there the next batches are not like neighbours.
std::array<Problem, 2> halves_of(const Problem& problem, std::size_t recent) {
  const std::size_t all = problem.tokens.front().size();
  const auto half = [&](std::size_t which) {
    return with_batches(problem, [=](std::size_t b) { return recent == all ? b % 2 == which : b + (2 - which) * recent >= all && b + (1 - which) * recent < all; });
  };
  return {half(0), half(1)};
}

/// A way to an answer, and the row rules by which to polish that; none where it shall stay as it is.
struct Choice {
  std::string way;
  std::vector<LayerGuess::Rows> rows;
};

/// The way whose answers to either half of the batches are the fastest on the other half, as it is and mixed, over all layers. What is in force, or experts in order where nothing is, stays unless that gains something.
Choice best_way(const std::array<Problem, 2>& halves, const Settings& settings) {
  Settings quick = settings;  // one refinement is enough to tell the ways apart
  quick.refined = std::min<std::int64_t>(settings.refined, 1);
  std::array<std::vector<Problem>, 2> judges;  // of the answers to a half
  for (const std::size_t half : {0, 1}) {
    const Problem& unseen = halves[1 - half];
    judges[half] = {unseen};
    if (const int times = mixings(unseen); times > 0) judges[half].push_back(mixed(unseen, times));
  }
  const auto judged = [&](std::size_t half, const Answer& answer) {
    std::vector<double> of_layer(answer.size());
    parallel_for(static_cast<std::int64_t>(answer.size()), [&](std::int64_t l) {
      for (const Problem& judge : judges[half]) of_layer[static_cast<std::size_t>(l)] += judge.layer_seconds(static_cast<std::size_t>(l), answer[static_cast<std::size_t>(l)]);
    });
    return std::accumulate(of_layer.begin(), of_layer.end(), 0.0);
  };

  std::array<Ways, 2> told;
  std::map<std::string, double> seconds;
  for (const std::size_t half : {0, 1}) told[half] = ways(halves[half], quick);
  for (const auto& [name, answer] : told[0].answers)
    if (const auto other = told[1].answers.find(name); other != told[1].answers.end()) seconds[name] = judged(0, answer) + judged(1, other->second);
  std::string best = kSearch;
  for (const auto& [name, s] : seconds)
    if (s < seconds.at(best)) best = name;
  for (const std::string& stay : {std::string(), fmt::format("contiguous {}", settings.shape.experts)})
    if (const auto found = seconds.find(stay); found != seconds.end() && seconds.at(best) >= kWorthIt * found->second) return {stay, {}};
  return {best, told[0].rows};
}

}  // namespace

/// epsim's own: least simulated layer time. Begins with the best answers of the other policies, judged by simulating the batches it is shown, improves each by local search on a guess of compute and
/// transfer time that is brought up to date per change (shared/layer_guess.h), takes what simulates fastest, and goes on from there by simulation alone.
/// What fits the batches it is shown need not fit others. Where there are four or more, it first plays all of this through on either half of them and lets the other half judge: the search, the search on tokens dealt to
/// batches anew (shared/resample.h) and without replicas, and every policy as it is; the way that did best there, over all layers, answers, and that is polished. Where popularity drifts it goes by the last batches alone (shared/recent.h).
PlacementPolicy epsim_opt(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "Least simulated layer time: local search on compute and transfers together, from the best of the other policies' placements, judged by simulation.";
  policy.sees = PlacementPolicy::Sees::tokens;
  policy.or_less = true;
  Settings settings;
  settings.slots = read_slots(p, shape);
  settings.rank_slots = p.integer("rank_slots", "experts that a rank has room for, so that ranks may hold unequal numbers of the `slots`", 0, 1, 1 << 20, "an even share of the slots");
  settings.moves = p.integer("moves", "changes tried on each placement that is improved", 20'000, 0, 1'000'000'000);
  settings.refined = p.integer("refined", "how many of the best placements of others are improved", 3, 0, 1'000);
  const std::int64_t tried = p.integer("polished", "changes tried by simulation on the placement that is found", 0, 0, 1'000'000'000, "1000, or fewer where batches are so large that these would take long");
  if (p.has("polished")) settings.polished = tried;
  const std::int64_t budget = p.integer("budget", "experts of a layer that may move between ranks, counted from the placement in force", 0, 0, 1 << 30, "as many as it takes");
  if (p.has("budget")) settings.budget = budget;
  settings.generalise = p.flag("generalise", "choose what does well on batches that were not shown, by cross-validation where there are four or more; otherwise what is fastest on those that were", true);
  const std::string seeds = p.text("seeds", "policies to begin with, separated by commas", "all");
  if (!p.usable()) return policy;
  std::vector<std::string> names;
  for (const std::string& name : builtin_placements().names())
    if (name != kSelf && name != "force_balanced" && name != "least_load") names.push_back(name);
  if (seeds == "all") {
    settings.seeds = names;
  } else {
    std::string rest = seeds;
    while (!rest.empty()) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      std::string name = rest.substr(0, comma);
      rest.erase(0, comma + 1);
      name.erase(0, name.find_first_not_of(' '));
      name.erase(name.find_last_not_of(' ') + 1);
      if (std::ranges::find(names, name) == names.end()) p.error("seeds", fmt::format("`{}` is no policy to begin with{}", name, suggest(name, names)));
      settings.seeds.push_back(name);
    }
  }
  if (p.has("rank_slots") && shape && settings.rank_slots * shape->ranks < (settings.slots ? settings.slots : shape->experts))
    p.error("rank_slots", fmt::format("{} on each of {} ranks are fewer than the {} slots", settings.rank_slots, shape->ranks, settings.slots ? settings.slots : shape->experts));
  if (!p.usable() || !shape) return policy;
  settings.shape = *shape;
  policy.room = spread_slots(settings.rank_slots ? settings.rank_slots * shape->ranks : settings.slots ? settings.slots : shape->experts, shape->ranks);
  policy.place = [settings](const Problem& problem) {
    const bool can_tell = problem.batch_seconds && !problem.tokens.empty() && std::ranges::all_of(problem.tokens, [&](const auto& batches) { return batches.size() >= 4 && batches.size() == problem.tokens.front().size(); });
    if (!settings.generalise || !can_tell) {
      Found found = search(problem, answers(problem, settings), settings);
      return problem.batch_seconds && !problem.tokens.empty() ? polished(problem, found.answer, found.rows, settings) : std::move(found.answer);
    }
    const std::size_t all = problem.tokens.front().size(), recent = telling_batches(problem);
    const Choice choice = best_way(halves_of(problem, recent), settings);
    const Problem telling = recent == all ? problem : with_batches(problem, [=](std::size_t b) { return b + recent >= all; });
    Answer answer = answer_by(choice.way, telling, answers(telling, settings), settings);
    return !choice.rows.empty() ? polished(telling, answer, choice.rows, settings_of(choice.way, settings)) : std::move(answer);
  };
  return policy;
}

}  // namespace epsim::parts_placement
