// What runs on each host of a job: starts the host's processes when it is told to, hands on what
// they write, and leaves none behind, also when it no longer hears of the launcher.
//
// The launcher writes lines of JSON to its standard input: {"check": HostCheckOptions},
// {"start": {"commands": [{"argv", "variables", "folder"}], "grace_ms", "silence_ms"}},
// {"signal": 2}, {"stop": true}, {"ping": true}; the end of the input is an order to stop. It
// answers with lines of JSON on standard output: {"checked": facts}, {"started": [pids]},
// {"out": [process, text]}, {"err": [process, text]}, {"exit": [process, code, signal]} (0: none),
// {"done": true} when nothing is left of them, {"error": text}, {"ping": true}.
#pragma once

namespace ttpu::parallel {

// Runs until the input ends and nothing is left; the exit code.
int run_agent();

}  // namespace ttpu::parallel
