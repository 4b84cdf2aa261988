// Threads stand for processes here; tests/cli/test_launch.py has processes.
#include "ttpu/parallel/control/control_plane.h"

#include <future>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/support/error_of.h"
#include "ttpu/parallel/control/socket.h"

namespace ttpu::parallel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

ControlOptions options_of(int process, int processes, const std::string& coordinator) {
  ControlOptions options;
  options.coordinator = coordinator;
  options.process = process;
  options.processes = processes;
  for (int i = 0; i < processes; ++i) options.hosts.push_back("host-" + std::to_string(i));
  options.job = "test";
  options.start_timeout = seconds(20);
  options.peer_timeout = milliseconds(1000);
  return options;
}

// Free at the time of the call.
std::string free_coordinator() { return "127.0.0.1:" + std::to_string(free_ports(1)); }

using Body = std::function<void(ControlPlane&)>;

// Runs `body` in each of the processes, and rethrows what the first of them threw.
void in_all(int processes, const Body& body) {
  const std::string coordinator = free_coordinator();
  std::vector<std::future<void>> all;
  for (int process = 0; process < processes; ++process) {
    all.push_back(std::async(std::launch::async, [=] {
      ControlPlane plane(options_of(process, processes, coordinator));
      body(plane);
    }));
  }
  for (std::future<void>& one : all) one.wait();
  for (std::future<void>& one : all) one.get();
}

TEST(ControlPlane, KeysReachAllWhoeverSetsThemAndWhenever) {
  in_all(4, [](ControlPlane& plane) {
    const std::string mine = "key-" + std::to_string(plane.process());
    const std::string big(static_cast<size_t>(300000 * (1 + plane.process())), 'x');
    plane.set(mine, big);
    for (int process = 0; process < plane.processes(); ++process) {
      const std::string value = plane.get("key-" + std::to_string(process), seconds(20));
      EXPECT_EQ(value.size(), static_cast<size_t>(300000 * (1 + process)));
    }
    plane.barrier("done", seconds(20));
  });
}

TEST(ControlPlane, ABarrierHoldsUntilTheLastHasCome) {
  std::atomic<int> there = 0;
  in_all(3, [&](ControlPlane& plane) {
    for (int round = 1; round <= 50; ++round) {
      ++there;
      plane.barrier("round " + std::to_string(round), seconds(20));
      EXPECT_GE(there.load(), 3 * round);
      plane.barrier("back " + std::to_string(round), seconds(20));
    }
  });
}

TEST(ControlPlane, AllHearTheSameInTheSameOrderThoughSomeAreSlow) {
  static constexpr int kMessages = 400;
  static constexpr size_t kSize = 100000;  // together more than all that is kept anywhere
  in_all(3, [](ControlPlane& plane) {
    if (plane.process() == 0) {
      for (int i = 0; i < kMessages; ++i)
        plane.broadcast(std::to_string(i) + std::string(kSize, ' '));
      return;
    }
    int heard = 0;
    while (const auto message = plane.receive()) {
      EXPECT_EQ(std::stoi(*message), heard++);
      if (plane.process() == 1) std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    EXPECT_EQ(heard, kMessages);
  });
}

TEST(ControlPlane, WhoIsMissingAtABarrierIsNamed) {
  in_all(3, [](ControlPlane& plane) {
    if (plane.process() != 2) {
      const std::string why =
          error_of([&] { plane.barrier("load", milliseconds(50)); }, Code::kDeadlineExceeded);
      EXPECT_NE(why.find("process 2 (host-2)"), std::string::npos) << why;
    }
    plane.barrier("end", seconds(20));
  });
}

TEST(ControlPlane, WhoGivesUpEndsAllWithItsWords) {
  for (const int first : {0, 2}) {
    in_all(3, [first](ControlPlane& plane) {
      if (plane.process() == first) plane.give_up("no weights");
      const std::string why = error_of(
          [&] {
            plane.barrier("load", seconds(20));
            plane.check();
          },
          Code::kUnavailable);
      const std::string name = "process " + std::to_string(first) + " (host-" +
                               std::to_string(first) + ") gave up: no weights";
      EXPECT_NE(why.find(name), std::string::npos) << why;
    });
  }
}

TEST(ControlPlane, WhoHasEndedIsNotWaitedFor) {
  in_all(2, [](ControlPlane& plane) {
    if (plane.process() == 1) return;
    const std::string why =
        error_of([&] { plane.barrier("load", seconds(1000)); }, Code::kDeadlineExceeded);
    EXPECT_NE(why.find("process 1 (host-1), which has ended"), std::string::npos) << why;
  });
}

TEST(ControlPlane, AKeyThatNobodySetsIsNamed) {
  in_all(2, [](ControlPlane& plane) {
    const std::string why =
        error_of([&] { plane.get("answer", milliseconds(20)); }, Code::kDeadlineExceeded);
    EXPECT_NE(why.find("'key/answer'"), std::string::npos) << why;
    plane.barrier("end", seconds(20));
  });
}

TEST(ControlPlane, WhoDoesNotComeUpIsNamedOnAllTheOthers) {
  const std::string coordinator = free_coordinator();
  const auto wait = [&](int process) {
    ControlOptions options = options_of(process, 3, coordinator);
    options.start_timeout = milliseconds(process == 0 ? 300 : 20000);
    return error_of([&] { const ControlPlane plane(options); },
                    process == 0 ? Code::kDeadlineExceeded : Code::kUnavailable);
  };
  auto first = std::async(std::launch::async, wait, 0);
  auto second = std::async(std::launch::async, wait, 1);
  for (const std::string& why : {first.get(), second.get()}) {
    EXPECT_NE(why.find("missing: process 2 (host-2)"), std::string::npos) << why;
    EXPECT_EQ(why.find("(host-1)"), std::string::npos) << why;
  }
}

TEST(ControlPlane, ACoordinatorThatDoesNotComeUpIsNamed) {
  ControlOptions options = options_of(1, 2, free_coordinator());
  options.start_timeout = milliseconds(200);
  const std::string why =
      error_of([&] { const ControlPlane plane(options); }, Code::kDeadlineExceeded);
  EXPECT_NE(why.find("process 0 (host-0) has not come up within 0.2 s"), std::string::npos) << why;
}

TEST(ControlPlane, WhoFallsSilentIsNamedAndWhoBreaksOffToo) {
  for (const bool silent : {true, false}) {
    const std::string coordinator = free_coordinator();
    auto leader = std::async(std::launch::async, [&] {
      ControlPlane plane(options_of(0, 3, coordinator));
      return error_of([&] { plane.get("never", seconds(1000)); }, Code::kUnavailable);
    });
    auto other = std::async(std::launch::async, [&] {
      ControlPlane plane(options_of(1, 3, coordinator));
      return error_of([&] { plane.receive(); }, Code::kUnavailable);
    });
    // Process 2 greets, comes to the start, and then says nothing more.
    Descriptor socket;
    while (!socket.open()) {
      try {
        socket = connect_to(parse_address(coordinator), seconds(5));
      } catch (const Error&) {  // not there yet
      }
    }
    const std::string greeting =
        encode({FrameKind::kHello, "test", R"({"process": 2, "processes": 3})"}) +
        encode({FrameKind::kBarrier, kStartBarrier, {}, 10000});
    ASSERT_EQ(::send(socket.get(), greeting.data(), greeting.size(), 0),
              static_cast<ssize_t>(greeting.size()));
    FrameReader reader;
    std::array<char, 256> block{};
    for (bool started = false; !started;) {
      const ssize_t count = ::recv(socket.get(), block.data(), block.size(), 0);
      if (count > 0) reader.push({block.data(), static_cast<size_t>(count)});
      while (const auto frame = reader.next()) {
        started = started || frame->kind == FrameKind::kPassed;
      }
    }
    if (!silent) ::shutdown(socket.get(), SHUT_WR);
    const std::string how = silent ? "process 2 (host-2) has not been heard of for 1 s"
                                   : "process 2 (host-2) has ended without a goodbye";
    for (const std::string& why : {leader.get(), other.get()}) {
      EXPECT_NE(why.find(how), std::string::npos) << why;
    }
  }
}

TEST(ControlPlane, StrangersAreSentAwayAndDoNoHarm) {
  const std::string coordinator = free_coordinator();
  auto leader = std::async(std::launch::async, [&] {
    ControlPlane plane(options_of(0, 2, coordinator));
    plane.barrier("end", seconds(20));
  });
  const auto refusal = [&](const ControlOptions& options) {
    return error_of([&] { const ControlPlane plane(options); }, Code::kUnavailable);
  };
  ControlOptions other_job = options_of(1, 2, coordinator);
  other_job.job = "another";
  EXPECT_NE(refusal(other_job).find("another job"), std::string::npos);
  const std::string misfit = refusal(options_of(7, 8, coordinator));
  EXPECT_NE(misfit.find("process 7 of 8"), std::string::npos) << misfit;
  for (const std::string& noise : {std::string("GET / HTTP/1.1\r\n\r\n12345678901234567890"),
                                   std::string(4096, '\xff'), std::string(3, '\0')}) {
    const Descriptor socket = connect_to(parse_address(coordinator), seconds(5));
    ASSERT_GT(::send(socket.get(), noise.data(), noise.size(), MSG_NOSIGNAL), 0);
  }
  {
    ControlPlane plane(options_of(1, 2, coordinator));
    plane.barrier("end", seconds(20));
  }
  leader.get();
}

// The bytes of `text` go to the coordinator; true when it closes the connection soon after.
bool is_cut_off(const std::string& coordinator, const std::string& text) {
  Descriptor socket;
  while (!socket.open()) {
    try {
      socket = connect_to(parse_address(coordinator), seconds(5));
    } catch (const Error&) {  // not there yet
    }
  }
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
  std::array<char, 4096> block{};
  pollfd ready{socket.get(), POLLIN, 0};
  while (::poll(&ready, 1, 4000) > 0) {
    if (::recv(socket.get(), block.data(), block.size(), 0) <= 0) return true;
  }
  return false;
}

TEST(ControlPlane, WhoHasNotGreetedCannotSendMuch) {
  const std::string coordinator = free_coordinator();
  auto leader = std::async(std::launch::async,
                           [&] { const ControlPlane plane(options_of(0, 2, coordinator)); });
  // The beginning of a frame of a megabyte: the coordinator does not wait for the rest.
  const std::string large = encode({FrameKind::kHello, "test", std::string(1 << 20, ' ')});
  EXPECT_TRUE(is_cut_off(coordinator, large.substr(0, 100)));
  { const ControlPlane plane(options_of(1, 2, coordinator)); }
  leader.get();
}

TEST(ControlPlane, WhoGreetsAndThenSendsNoFramesIsNamed) {
  const std::string coordinator = free_coordinator();
  auto leader = std::async(std::launch::async, [&] {
    return error_of([&] { const ControlPlane plane(options_of(0, 2, coordinator)); },
                    Code::kUnavailable);
  });
  EXPECT_TRUE(is_cut_off(coordinator,
                         encode({FrameKind::kHello, "test", R"({"process": 1, "processes": 2})"}) +
                             std::string(64, '\xff')));
  const std::string why = leader.get();
  EXPECT_NE(why.find("process 1 (host-1) [control] what came"), std::string::npos) << why;
}

TEST(ControlPlane, AddressesAreChecked) {
  EXPECT_EQ(parse_address("[::1]:80").host, "::1");
  EXPECT_EQ(to_string(parse_address("[::1]:80")), "[::1]:80");
  for (const char* bad : {"host", "host:", ":80", "host:70000", "host:8x"}) {
    EXPECT_THROW(parse_address(bad), Error) << bad;
  }
  const Descriptor taken = listen_on(0);
  EXPECT_THROW(listen_on(port_of(taken)), Error);
}

}  // namespace
}  // namespace ttpu::parallel
