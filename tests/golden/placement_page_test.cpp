// The commands of docs/placement.md give the figures that it quotes.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using Json = nlohmann::json;
using testing::Outcome;
using testing::run_program;

const std::string kRoot = EPSIM_SOURCE_DIR;

const std::string& page() {
  static const std::string text = testing::bytes_of(kRoot + "/docs/placement.md");
  return text;
}

/// The words of a command as a shell would take them apart; double quotes only.
std::vector<std::string> words(const std::string& command) {
  std::vector<std::string> out(1);
  bool quoted = false;
  for (const char c : command) {
    if (c == '"')
      quoted = !quoted;
    else if (c == ' ' && !quoted)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

/// Runs the one command of the page that begins with `begin` and stands in back quotes; gives its JSON. The figure that it writes is `image` of docs/images, if named.
Json json_of(const std::string& begin, const std::string& image = "") {
  const std::size_t at = page().find("`epsim " + begin);
  EXPECT_NE(at, std::string::npos) << begin;
  if (at == std::string::npos) return {};
  std::vector<std::string> arguments = words(page().substr(at + 1, page().find('`', at + 1) - at - 1));
  arguments.erase(arguments.begin());
  for (std::string& a : arguments)
    for (std::size_t i = a.find("examples/"); i != std::string::npos; i = a.find("examples/", i + 1))
      if (i == 0 || a[i - 1] == '=' || a[i - 1] == ',') a.insert(i, kRoot + "/"), i += kRoot.size() + 1;
  const testing::Workspace work("epsim_placement_page");
  arguments.insert(arguments.end(), {"--format", "json"});
  if (!image.empty()) arguments.insert(arguments.end(), {"--out", (work.root / "out").string()});
  const Outcome run = run_program(arguments);
  EXPECT_EQ(run.status, 0) << run.err;
  if (!image.empty()) {
    EXPECT_TRUE(testing::bytes_of(work.root / "out/compare.svg") == testing::bytes_of(kRoot + "/docs/images/" + image)) << image << " is the figure of another run";
  }
  return Json::parse(run.out);
}

void says(const std::string& figure) { EXPECT_NE(page().find(figure), std::string::npos) << "docs/placement.md should say: " << figure; }

double number(const Json& point, const char* field) { return point.at(field).get<double>(); }

TEST(PlacementPage, QuotesTheMigrationStorm) {
  const Json points = json_of("compare examples/migration.yaml --over \"placement=", "migration.svg").at("points");
  const Json &eplb = points.at(0), &swift = points.at(1), &flash = points.at(2);
  says(fmt::format("EPLB moves {:.0f} MB a batch and layers wait {:.2f} ms", number(eplb, "moved_bytes") / 1e6, 1e3 * number(eplb, "waited_s")));
  says(fmt::format("moves {:.0f} MB, waits {:.2f} ms, and is as well balanced (max/mean {:.2f} against {:.2f})", number(swift, "moved_bytes") / 1e6, 1e3 * number(swift, "waited_s"),
                   number(swift, "rank_load_max_over_mean"), number(eplb, "rank_load_max_over_mean")));
  says(fmt::format("moves {:.0f} MB, waits {:.2f} ms, and is balanced best ({:.2f})", number(flash, "moved_bytes") / 1e6, 1e3 * number(flash, "waited_s"), number(flash, "rank_load_max_over_mean")));
  EXPECT_EQ(number(flash, "relative_to_best"), 1);
  says(fmt::format("EPLB takes {:.1f} % longer (interval ±{:.1f})", 100 * (number(eplb, "relative_to_best") - 1), 100 * number(eplb, "relative_to_best_half_width")));
  says(fmt::format("paid for themselves after {:.2g} batches, SwiftBalancer's after {:.2g} and FlashLB's after {:.2g}", number(eplb, "break_even_batches"), number(swift, "break_even_batches"),
                   number(flash, "break_even_batches")));
}

TEST(PlacementPage, QuotesTheBreakEvenInterval) {
  const Json points = json_of("compare examples/migration.yaml --over rebalance.every=", "break_even.svg").at("points");
  ASSERT_EQ(points.size(), 7U);
  const Json &every = points.at(0), &never = points.at(6);
  says(fmt::format("the wait ({:.1f} ms)", 1e3 * number(every, "waited_s")));
  says(fmt::format("takes {:.0f} % longer than with the best interval", 100 * (number(every, "relative_to_best") - 1)));
  says(fmt::format("never (64) takes {:.0f} % longer", 100 * (number(never, "relative_to_best") - 1)));
  std::string row = "| `break_even_batches` |";
  for (const Json& p : points) {
    const int interval = std::stoi(p.at("set").at("rebalance.every").get<std::string>());
    EXPECT_EQ(number(p, "relative_to_best") == 1, interval == 4);
    EXPECT_EQ(number(p, "relative_to_best") - number(p, "relative_to_best_half_width") > 1, interval != 4 && interval != 8) << interval;
    row += p.at("break_even_batches").is_number() ? fmt::format(" {:.2g} |", number(p, "break_even_batches")) : " |";
    if (interval < 64) {
      EXPECT_EQ(number(p, "break_even_batches") < interval, interval >= 4) << interval;
    }
  }
  says(row);
}

TEST(PlacementPage, QuotesWhatABatchesSizeDoesToBreakEven) {
  const Json points = json_of("compare examples/migration.yaml --over source.times=").at("points");
  says(fmt::format("after {:.1f} batches in place of {:.1f}", number(points.at(0), "break_even_batches"), number(points.at(1), "break_even_batches")));
}

TEST(PlacementPage, QuotesTheReplicaRules) {
  const Json points = json_of("compare examples/trained.yaml --over replica=", "replica.svg").at("points");
  std::map<std::string, Json> by_rule;
  for (const Json& p : points) by_rule[p.at("set").at("replica")] = p;
  const Json &nearest = by_rule.at("nearest"), &turns = by_rule.at("round_robin"), &even = by_rule.at("node_even"), &quota = by_rule.at("quota");
  EXPECT_EQ(number(even, "relative_to_best"), 1);
  says(fmt::format("takes {:.0f} % of the\nbytes between nodes away and is {:.1f} % faster than `round_robin` (interval ±{:.1f})", 100 * (1 - number(even, "cross_node_bytes") / number(turns, "cross_node_bytes")),
                   100 * (number(turns, "relative_to_best") - 1), 100 * number(turns, "relative_to_best_half_width")));
  says(fmt::format("(max/mean {:.2f} against {:.2f})", number(nearest, "rank_load_max_over_mean"), number(turns, "rank_load_max_over_mean")));
  says(fmt::format("balance best ({:.2f})", number(quota, "rank_load_max_over_mean")));
  EXPECT_EQ(number(quota, "rank_load_max_over_mean"), number(by_rule.at("lp"), "rank_load_max_over_mean"));
}

TEST(PlacementPage, QuotesWhatMovingCostsWhereNothingDrifts) {
  const Json points = json_of("compare examples/trained.yaml --set batches=32").at("points");
  const Json &eplb = points.at(0), &swift = points.at(1);
  says(fmt::format("EPLB moves {:.0f} MB a batch and layers wait {:.2f} ms for them", number(eplb, "moved_bytes") / 1e6, 1e3 * number(eplb, "waited_s")));
  says(fmt::format("a batch without takes {:.2f} ms", 1e3 * (number(eplb, "total_s") - number(eplb, "waited_s"))));
  for (const char* field : {"moved_bytes", "waited_s"}) EXPECT_NEAR(number(swift, field) / number(eplb, field), 0.5, 0.05) << "half of both";
  const auto hundreds = [](double batches) { return fmt::format("{:.1f}00", std::round(batches / 100) / 10); };
  std::string eplb_pays = hundreds(number(eplb, "break_even_batches")), swift_pays = hundreds(number(swift, "break_even_batches"));
  for (std::string* s : {&eplb_pays, &swift_pays}) std::ranges::replace(*s, '.', ',');
  says("after " + eplb_pays + " and " + swift_pays + " batches");
}

TEST(PlacementPage, QuotesWhatWaterfillGains) {
  const Json points = json_of("compare examples/shared_expert.yaml --over model=").at("points");
  std::map<std::string, std::string> rows;
  std::map<std::string, double> seconds;
  for (const Json& p : points) {
    const Json& set = p.at("set");
    const std::string model = std::filesystem::path(set.at("model").get<std::string>()).stem(), placement = set.at("placement"), rule = set.at("shared_expert");
    rows[fmt::format("`{}`, `{}`", model, placement)] += fmt::format(" {:.2f} ms ({:.2f}) |", 1e3 * number(p, "total_s"), number(p, "rank_rows_max_over_mean"));
    seconds[model + placement + rule] = number(p, "total_s");
    if (placement == "eplb" && rule != "own") {
      EXPECT_GT(seconds.at(model + placement + rule), seconds.at(model + placement + "own")) << "visits only cost";
    }
  }
  EXPECT_EQ(rows.size(), 6U);
  for (const auto& [where, row] : rows) says("| " + where + " |" + row);
  const auto gain = [&](const std::string& model, const std::string& rule) { return 100 * (1 - seconds.at(model + "contiguous" + rule) / seconds.at(model + "contiguousown")); };
  says(fmt::format("nothing to give away ({:.0f} %)", gain("shared-1", "waterfill")));
  says(fmt::format("one of twice the width gains {:.0f} %", gain("shared-2", "waterfill")));
  says(fmt::format("overfills the other ranks and costs {:.0f} %, counted\nas 8 it gains {:.0f} %", -gain("shared-8", "waterfill"), gain("shared-8", "{waterfill: {row: 8}}")));
}

TEST(PlacementPage, QuotesTheFailure) {
  const Json run = json_of("run examples/failure.yaml");
  const Json& events = run.at("events");
  ASSERT_EQ(events.size(), 3U);
  const Json &fails = events.at(0), &joins = events.at(1), &slow = events.at(2);
  says(fmt::format("{:.0f} MB are restored and {:.2f} GB travel, and the layers wait {:.1f} ms", number(fails, "restored_bytes") / 1e6, number(fails, "moved_bytes") / 1e9, 1e3 * number(fails, "waited_s")));
  says(fmt::format("{} batch to recover", fails.at("recovery_batches").get<int>()));
  says(fmt::format("from {:.2f} to {:.2f} ms", 1e3 * number(fails, "before_s"), 1e3 * number(fails, "settled_s")));
  says(fmt::format("The layers wait {:.1f} ms when it joins", 1e3 * number(joins, "waited_s")));
  says(fmt::format("A rank at half its speed makes a batch {:.0f} % longer", 100 * (number(slow, "settled_s") / number(joins, "settled_s") - 1)));
}

}  // namespace
}  // namespace epsim
