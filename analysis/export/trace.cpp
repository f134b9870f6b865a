#include "analysis/export/trace.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <stdexcept>

#include <fmt/format.h>
#include <google/protobuf/io/gzip_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>

#include "analysis/export/perfetto.pb.h"

namespace epsim {
namespace {

using perfetto::TrackEvent;

constexpr int kStages = 3;
constexpr std::uint64_t kTracksPerRank = 1024;  ///< track ids of a rank: its process, then lanes of three stages
constexpr std::uint32_t kSequence = 1;

std::uint64_t process_track(Rank rank) { return 1 + static_cast<std::uint64_t>(rank) * kTracksPerRank; }

/// A slice of the timeline on its way to the file.
struct Span {
  std::uint64_t track;
  std::uint64_t begin_ns, end_ns;
  std::int32_t slice;
};

/// An arrow: from the begin of one slice to the end of another (indices into the timeline's slices).
struct Arrow {
  std::uint64_t id;
  std::int32_t slice;
  friend bool operator<(const Arrow& a, const Arrow& b) { return std::pair(a.slice, a.id) < std::pair(b.slice, b.id); }
};

/// Rows that each rank sends to and receives from others in a transfer phase.
struct RankTotals {
  std::vector<std::int64_t> sent, received;
  explicit RankTotals(const Phase& phase) {
    if (phase.kind != Phase::Kind::transfer) return;
    sent.resize(static_cast<std::size_t>(phase.rows.ranks()));
    received = sent;
    for (const RowTable::Entry& e : phase.rows.all()) sent[e.source] += e.rows, received[e.destination] += e.rows;
  }
};

void annotate(TrackEvent& event, const char* name, std::int64_t value) {
  perfetto::DebugAnnotation* note = event.add_debug_annotations();
  note->set_name(name);
  note->set_int_value(value);
}

}  // namespace

struct TraceWriter::State {
  State(std::ostream& stream, const Topology& topo, int flows) : out(stream), topology(topo), flows_per_phase(flows), file(&stream), gzip(&file, options()) {}

  static google::protobuf::io::GzipOutputStream::Options options() {
    google::protobuf::io::GzipOutputStream::Options o;
    o.format = google::protobuf::io::GzipOutputStream::GZIP;
    o.compression_level = 6;
    return o;
  }

  void write(perfetto::TracePacket& packet) {
    packet.set_trusted_packet_sequence_id(kSequence);
    chunk.Clear();
    chunk.add_packet()->Swap(&packet);
    // A trace is nothing but packets: parts written one after another are one trace. What cannot be written is said at the end: what is measured meanwhile is worth having.
    broken = broken || !chunk.SerializeToZeroCopyStream(&gzip);
    packet.Clear();
  }

  /// The track of a lane of a stage on a rank; describes it the first time.
  std::uint64_t track(Rank rank, Stage stage, std::size_t lane);
  std::vector<Span> lay_out(const LayerRun& run, Time offset);
  void find_arrows(const LayerRun& run, const std::vector<Span>& span_of_slice, std::vector<Arrow>& out_of, std::vector<Arrow>& into);
  void describe(TrackEvent& event, const LayerRun& run, const Timeline::Slice& slice, const std::vector<RankTotals>& totals) const;

  std::ostream& out;
  const Topology& topology;
  int flows_per_phase;
  google::protobuf::io::OstreamOutputStream file;
  bool broken = false;  ///< the stream takes no more
  google::protobuf::io::GzipOutputStream gzip;
  perfetto::Trace chunk;
  std::vector<std::array<std::size_t, kStages>> lanes;  ///< [R] lanes described so far
  std::uint64_t next_flow = 1;
};

std::uint64_t TraceWriter::State::track(Rank rank, Stage stage, std::size_t lane) {
  const std::uint64_t index = static_cast<std::uint64_t>(stage) + kStages * lane;
  const std::uint64_t id = process_track(rank) + 1 + index;
  for (std::size_t& described = lanes[rank][static_cast<std::size_t>(stage)]; described <= lane; ++described) {
    const std::uint64_t its_index = static_cast<std::uint64_t>(stage) + kStages * described;
    perfetto::TracePacket packet;
    perfetto::TrackDescriptor& track = *packet.mutable_track_descriptor();
    track.set_uuid(process_track(rank) + 1 + its_index);
    track.set_parent_uuid(process_track(rank));
    perfetto::ThreadDescriptor& thread = *track.mutable_thread();
    thread.set_pid(rank + 1);
    // Thread ids must differ from every process id, or a thread would be taken for a process's main one.
    thread.set_tid((std::int64_t{1} << 24) + static_cast<std::int64_t>(rank) * static_cast<std::int64_t>(kTracksPerRank) + static_cast<std::int64_t>(its_index));
    thread.set_thread_name(described == 0 ? std::string(name_of(stage)) : fmt::format("{} {}", name_of(stage), described + 1));
    write(packet);
  }
  return id;
}

/// Gives every slice a track on which it overlaps no other: the first lane of its rank and stage that is free when it begins.
std::vector<Span> TraceWriter::State::lay_out(const LayerRun& run, Time offset) {
  const auto& slices = run.timeline.slices;
  std::vector<std::int32_t> order(slices.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return std::tuple(slices[a].begin, slices[a].end, slices[a].phase) < std::tuple(slices[b].begin, slices[b].end, slices[b].phase);
  });
  std::vector<std::array<std::vector<std::uint64_t>, kStages>> busy_until(run.schedule.ranks);
  std::vector<Span> spans(slices.size());
  for (const std::int32_t i : order) {
    const Timeline::Slice& slice = slices[i];
    const Stage stage = run.schedule.phases[slice.phase].stage;
    const std::uint64_t begin = static_cast<std::uint64_t>((offset + slice.begin).ps / 1000), end = static_cast<std::uint64_t>((offset + slice.end).ps / 1000);
    std::vector<std::uint64_t>& lanes_of = busy_until[slice.rank][static_cast<std::size_t>(stage)];
    std::size_t lane = 0;
    while (lane < lanes_of.size() && lanes_of[lane] > begin) ++lane;
    if (lane == lanes_of.size()) lanes_of.push_back(0);
    lanes_of[lane] = end;
    spans[i] = {track(slice.rank, stage, lane), begin, end, i};
  }
  return spans;
}

void TraceWriter::State::find_arrows(const LayerRun& run, const std::vector<Span>& spans, std::vector<Arrow>& out_of, std::vector<Arrow>& into) {
  const int ranks = run.schedule.ranks;
  const auto& slices = run.timeline.slices;
  std::vector<std::int32_t> slice_of(run.schedule.phases.size() * static_cast<std::size_t>(ranks), -1);
  for (std::size_t i = 0; i < slices.size(); ++i)
    if (run.schedule.phases[slices[i].phase].kind == Phase::Kind::transfer) slice_of[static_cast<std::size_t>(slices[i].phase * ranks + slices[i].rank)] = static_cast<std::int32_t>(i);
  struct Message {
    std::int64_t rows;
    std::int32_t source, destination;
  };
  std::vector<Message> messages;
  for (std::size_t p = 0; p < run.schedule.phases.size(); ++p) {
    const Phase& phase = run.schedule.phases[p];
    if (phase.kind != Phase::Kind::transfer) continue;
    messages.clear();
    for (const RowTable::Entry& e : phase.rows.all()) messages.push_back({e.rows, e.source, e.destination});
    const auto larger = [](const Message& a, const Message& b) { return std::tuple(-a.rows, a.source, a.destination) < std::tuple(-b.rows, b.source, b.destination); };
    const std::size_t shown = std::min(messages.size(), static_cast<std::size_t>(flows_per_phase));
    std::partial_sort(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(shown), messages.end(), larger);
    for (std::size_t m = 0; m < shown; ++m) {
      const std::int32_t from = slice_of[p * static_cast<std::size_t>(ranks) + static_cast<std::size_t>(messages[m].source)];
      const std::int32_t to = slice_of[p * static_cast<std::size_t>(ranks) + static_cast<std::size_t>(messages[m].destination)];
      // A reader opens a flow by time: an arrow that would not end after it begins is left out.
      if (from < 0 || to < 0 || spans[from].begin_ns >= spans[to].end_ns) continue;
      out_of.push_back({next_flow, from});
      into.push_back({next_flow++, to});
    }
  }
  std::sort(out_of.begin(), out_of.end());
  std::sort(into.begin(), into.end());
}

void TraceWriter::State::describe(TrackEvent& event, const LayerRun& run, const Timeline::Slice& slice, const std::vector<RankTotals>& totals) const {
  const Phase& phase = run.schedule.phases[slice.phase];
  event.add_categories(std::string(name_of(phase.stage)));
  const bool names_expert = phase.kind == Phase::Kind::kernel && slice.slot.valid();
  const int expert = names_expert ? run.plan.placement.expert_of_slot[slice.slot] : -1;
  event.set_name(names_expert ? fmt::format("expert {}", expert) : phase.kind == Phase::Kind::kernel ? "shared expert" : phase.name);
  annotate(event, "layer", run.plan.layer);
  if (phase.kind == Phase::Kind::transfer) {
    const std::int64_t received = totals[slice.phase].received[slice.rank], sent = totals[slice.phase].sent[slice.rank];
    annotate(event, "rows", received);
    annotate(event, "bytes", received * phase.row_bytes);
    annotate(event, "rows_sent", sent);
    annotate(event, "bytes_sent", sent * phase.row_bytes);
  } else {
    annotate(event, "rows", slice.rows);
    if (phase.kind == Phase::Kind::reduce) annotate(event, "bytes", static_cast<std::int64_t>(phase.reduce_bytes[slice.rank]));
  }
  if (names_expert) {
    annotate(event, "slot", slice.slot);
    annotate(event, "expert", expert);
  }
}

TraceWriter::TraceWriter(std::ostream& out, const Topology& topology, int flows_per_phase) : state_(std::make_unique<State>(out, topology, flows_per_phase)) {
  state_->lanes.resize(topology.ranks());
  for (Rank rank : ids<Rank>(topology.ranks())) {
    perfetto::TracePacket packet;
    perfetto::TrackDescriptor& track = *packet.mutable_track_descriptor();
    track.set_uuid(process_track(rank));
    track.mutable_process()->set_pid(rank + 1);
    track.mutable_process()->set_process_name(fmt::format("rank {} (node {})", rank.value, topology.node_of(rank).value));
    state_->write(packet);
    for (const Stage stage : {Stage::dispatch, Stage::compute, Stage::combine}) state_->track(rank, stage, 0);
  }
}

TraceWriter::~TraceWriter() = default;

void TraceWriter::add(const LayerRun& run, Time offset) {
  const std::vector<Span> spans = state_->lay_out(run, offset);
  std::vector<Arrow> out_of, into;
  state_->find_arrows(run, spans, out_of, into);
  std::vector<RankTotals> totals;
  for (const Phase& phase : run.schedule.phases) totals.emplace_back(phase);

  // Events in time order. On one track a slice ends before the next begins, also where both are in the same nanosecond: each track's events are listed in its own order,
  // and the sort keeps the order of equals.
  struct Edge {
    std::uint64_t at_ns;
    const Span* span;
    bool begins;
  };
  std::vector<const Span*> by_begin;
  for (const Span& span : spans) by_begin.push_back(&span);
  const auto& slices = run.timeline.slices;
  std::stable_sort(by_begin.begin(), by_begin.end(), [&](const Span* a, const Span* b) {
    return std::tuple(a->track, slices[a->slice].begin, slices[a->slice].end, slices[a->slice].phase) <
           std::tuple(b->track, slices[b->slice].begin, slices[b->slice].end, slices[b->slice].phase);
  });
  std::vector<Edge> edges;
  for (const Span* span : by_begin) edges.push_back({span->begin_ns, span, true}), edges.push_back({span->end_ns, span, false});
  std::stable_sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at_ns < b.at_ns; });

  perfetto::TracePacket packet;
  for (const Edge& edge : edges) {
    packet.set_timestamp(edge.at_ns);
    TrackEvent& event = *packet.mutable_track_event();
    event.set_track_uuid(edge.span->track);
    event.set_type(edge.begins ? TrackEvent::TYPE_SLICE_BEGIN : TrackEvent::TYPE_SLICE_END);
    const auto& arrows = edge.begins ? out_of : into;
    for (auto a = std::lower_bound(arrows.begin(), arrows.end(), Arrow{0, edge.span->slice}); a != arrows.end() && a->slice == edge.span->slice; ++a)
      edge.begins ? event.add_flow_ids(a->id) : event.add_terminating_flow_ids(a->id);
    if (edge.begins) state_->describe(event, run, slices[edge.span->slice], totals);
    state_->write(packet);
  }
}

void TraceWriter::finish() {
  if (!state_->gzip.Close() || state_->broken) throw std::runtime_error("the trace cannot be written");
  // OstreamOutputStream keeps a buffer of its own; a copy of the stream's end is only sure after it has gone.
  State& s = *state_;
  std::ostream& out = s.out;
  state_.reset();
  out.flush();
  if (!out) throw std::runtime_error("the trace cannot be written");
}

}  // namespace epsim
