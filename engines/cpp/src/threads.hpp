// How many threads a runtime gets on a CPU.
#pragma once

namespace zmask {

// As many as were asked for. Where that is 0: as many as this process may use cores, if they are not
// all; else 0, which lets the runtime choose. ONNX Runtime itself counts the machine's cores and binds a
// thread to each, allowed or not.
int cpu_threads(int asked) noexcept;

}  // namespace zmask
