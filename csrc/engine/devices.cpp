#include "engine/devices.h"

#include "base/error.h"

namespace dpa2md {
namespace {

// The functions that count and identify one kind of GPU.
struct Gpus {
  int (*count)();
  std::string (*identity)(int);
};

Gpus gpus_of([[maybe_unused]] Device::Kind kind) {
#ifdef DPA2MD_CUDA_EMULATION
  if (kind == Device::Kind::kCudaEmulation) return {count_emulated_gpus, emulated_gpu_identity};
#endif
#ifdef DPA2MD_CUDA
  return {count_cuda_gpus, cuda_gpu_identity};
#else
  throw Error("this dpa2md was built without CUDA: use device \"cpu\".");
#endif
}

struct KindName {
  const char* name;
  Device::Kind kind;
};
constexpr KindName kKinds[] = {
    {"cpu", Device::Kind::kCpu},
    {"cuda", Device::Kind::kCuda},
#ifdef DPA2MD_CUDA_EMULATION
    {"cuda-emulation", Device::Kind::kCudaEmulation},
#endif
};

}  // namespace

std::string cuda_build() {
#ifdef DPA2MD_CUDA
  return DPA2MD_CUDA_BUILD;
#else
  return "";
#endif
}

std::string name(const Device& device) {
  for (const KindName& k : kKinds) {
    if (k.kind == device.kind) return k.name + (device.number < 0 ? "" : ":" + std::to_string(device.number));
  }
  return "";
}

Device parse_device(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  const std::string digits = colon == std::string::npos ? "0" : text.substr(colon + 1);
  const bool number =
      !digits.empty() && digits.size() < 4 && digits.find_first_not_of("0123456789") == std::string::npos;
  for (const KindName& k : kKinds) {
    const bool cpu = k.kind == Device::Kind::kCpu;
    if (k.name != kind || !number || (cpu && colon != std::string::npos)) continue;
    return {k.kind, colon == std::string::npos ? -1 : std::stoi(digits)};
  }
  throw Error("the device \"" + text + "\" is unknown: use \"cpu\", \"cuda\" or \"cuda:1\".");
}

Device device_of_process(const Device& device, int process) {
  if (device.is_cpu() || device.number >= 0) return device;
  return {device.kind, process % gpus_of(device.kind).count()};
}

std::string gpu_identity(const Device& device) {
  return device.is_cpu() ? "" : gpus_of(device.kind).identity(device.gpu());
}

void check_gpu_number(int number, int count) {
  if (number < count) return;
  throw Error(
      "there is no GPU " + std::to_string(number) + ": this process sees " +
      (count == 1 ? "one, number 0" : std::to_string(count) + ", numbers 0 to " + std::to_string(count - 1)) +
      "; check the number and CUDA_VISIBLE_DEVICES.");
}

}  // namespace dpa2md
