#include "analysis/export/trace.h"

#include <map>
#include <set>
#include <sstream>

#include <google/protobuf/io/gzip_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <gtest/gtest.h>

#include "proto/analysis/export/perfetto.pb.h"
#include "tests/analysis/measured_case.h"

namespace epsim {
namespace {

using perfetto::TrackEvent;
using testing::MeasuredCase;

std::string unzip(const std::string& bytes) {
  google::protobuf::io::ArrayInputStream in(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::GzipInputStream gzip(&in, google::protobuf::io::GzipInputStream::GZIP);
  std::string out;
  const void* data;
  int size;
  while (gzip.Next(&data, &size)) out.append(static_cast<const char*>(data), static_cast<std::size_t>(size));
  return out;
}

std::string trace_of(const MeasuredCase& c, int layers = 2, int flows = TraceWriter::kFlowsPerPhase) {
  std::ostringstream out;
  TraceWriter writer(out, c.experiment.topology, flows);
  Time offset{};
  for (int i = 0; i < layers; ++i, offset += c.run.timeline.end) writer.add(c.run, offset);
  writer.finish();
  return out.str();
}

perfetto::Trace parse(const std::string& file) {
  perfetto::Trace trace;
  EXPECT_TRUE(trace.ParseFromString(unzip(file)));
  return trace;
}

TEST(Trace, IsGzipWithoutATimeAroundPackets) {
  const std::string file = trace_of(MeasuredCase(1));
  ASSERT_GT(file.size(), 10U);
  EXPECT_EQ(file.substr(0, 2), "\x1f\x8b");
  EXPECT_EQ(file.substr(4, 4), std::string(4, '\0'));  // the header's time
  EXPECT_EQ(unzip(file).front(), 0x0A);                // field 1: a packet
}

TEST(Trace, NestsSlicesInOrderOnTracksThatWereDescribed) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const MeasuredCase c(seed);
    const perfetto::Trace trace = parse(trace_of(c));
    std::map<std::uint64_t, int> depth;                // of each thread track
    std::map<std::uint64_t, std::uint64_t> last_time;  // of its events
    std::set<std::uint64_t> processes;
    std::set<std::int64_t> threads;
    std::uint64_t now = 0;
    std::size_t slices = 0;
    for (const perfetto::TracePacket& packet : trace.packet()) {
      ASSERT_TRUE(packet.has_trusted_packet_sequence_id());
      if (packet.has_track_descriptor()) {
        const perfetto::TrackDescriptor& track = packet.track_descriptor();
        if (track.has_process()) {
          EXPECT_TRUE(processes.insert(track.uuid()).second);
          continue;
        }
        EXPECT_TRUE(processes.contains(track.parent_uuid()));
        EXPECT_TRUE(threads.insert(track.thread().tid()).second);
        EXPECT_GT(track.thread().tid(), c.experiment.topology.ranks());  // never a process's id
        EXPECT_TRUE(depth.emplace(track.uuid(), 0).second);
        continue;
      }
      const TrackEvent& event = packet.track_event();
      ASSERT_TRUE(depth.contains(event.track_uuid())) << "an event came before its track";
      ASSERT_GE(packet.timestamp(), now) << "events are in time order";
      now = packet.timestamp();
      depth[event.track_uuid()] += event.type() == TrackEvent::TYPE_SLICE_BEGIN ? 1 : -1;
      ASSERT_GE(depth[event.track_uuid()], 0);
      ASSERT_LE(depth[event.track_uuid()], 1) << "slices of a track overlap";
      if (event.type() == TrackEvent::TYPE_SLICE_BEGIN) {
        ++slices;
        EXPECT_FALSE(event.name().empty());
        std::set<std::string> notes;
        for (const auto& note : event.debug_annotations()) notes.insert(note.name());
        EXPECT_TRUE(notes.contains("rows") && notes.contains("layer"));
      }
    }
    EXPECT_EQ(processes.size(), static_cast<std::size_t>(c.experiment.topology.ranks()));
    EXPECT_EQ(slices, 2 * c.run.timeline.slices.size());
    EXPECT_EQ(now, static_cast<std::uint64_t>(2 * c.run.timeline.end.ps / 1000)) << "the second layer ends at the end";
    for (const auto& [track, left] : depth) EXPECT_EQ(left, 0);
  }
}

// I3: an arrow never points back in time.
TEST(Trace, FlowsLeaveOneSliceAndEndInAnotherLater) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const MeasuredCase c(seed);
    std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> begun;  // id -> time, track
    std::set<std::uint64_t> ended;
    const perfetto::Trace trace = parse(trace_of(c));
    for (const perfetto::TracePacket& packet : trace.packet()) {
      const TrackEvent& event = packet.track_event();
      for (const std::uint64_t id : event.flow_ids()) {
        EXPECT_EQ(event.type(), TrackEvent::TYPE_SLICE_BEGIN);
        EXPECT_TRUE(begun.emplace(id, std::pair(packet.timestamp(), event.track_uuid())).second);
      }
      for (const std::uint64_t id : event.terminating_flow_ids()) {
        EXPECT_EQ(event.type(), TrackEvent::TYPE_SLICE_END);
        ASSERT_TRUE(begun.contains(id)) << "a flow ends before it begins";
        EXPECT_LT(begun[id].first, packet.timestamp());
        EXPECT_NE(begun[id].second, event.track_uuid());
        EXPECT_TRUE(ended.insert(id).second);
      }
    }
    EXPECT_EQ(begun.size(), ended.size());
    std::size_t messages = 0;
    for (const Phase& p : c.run.schedule.phases)
      if (p.kind == Phase::Kind::transfer) {
        std::size_t in_phase = 0;
        for (int s = 0; s < c.run.schedule.ranks; ++s)
          for (int d = 0; d < c.run.schedule.ranks; ++d) in_phase += s != d && p.rows(s, d) > 0;
        messages += std::min<std::size_t>(in_phase, TraceWriter::kFlowsPerPhase);
      }
    EXPECT_EQ(begun.size(), 2 * messages) << "seed " << seed;
  }
}

TEST(Trace, ShowsOnlyTheLargestMessages) {
  const MeasuredCase c(5);
  std::size_t flows = 0, transfers = 0;
  const perfetto::Trace trace = parse(trace_of(c, 1, 1));
  for (const perfetto::TracePacket& packet : trace.packet()) flows += static_cast<std::size_t>(packet.track_event().flow_ids_size());
  for (const Phase& p : c.run.schedule.phases) transfers += p.kind == Phase::Kind::transfer;
  EXPECT_GT(flows, 0U);
  EXPECT_LE(flows, transfers);
}

// I5: same seed, same bytes.
TEST(Trace, IsTheSameBytesEveryTime) { EXPECT_EQ(trace_of(MeasuredCase(9)), trace_of(MeasuredCase(9))); }

TEST(Trace, SaysSoWhenTheStreamFails) {
  const MeasuredCase c(2);
  std::ostringstream out;
  TraceWriter writer(out, c.experiment.topology);
  writer.add(c.run, {});
  out.setstate(std::ios::badbit);
  EXPECT_THROW(writer.finish(), std::runtime_error);
}

}  // namespace
}  // namespace epsim
