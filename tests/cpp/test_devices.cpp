// Names of devices, and which GPU each process of a machine takes, on emulated GPUs.
#include <cstdlib>

#include "base/error.h"
#include "check.h"
#include "engine/devices.h"

using namespace dpa2md;

namespace {

void test_names() {
  CHECK(parse_device("cpu").is_cpu());
  CHECK(parse_device("cuda-emulation").number == -1);
  CHECK(parse_device("cuda-emulation:12").number == 12);
  for (const char* name : {"", "gpu", "cpu:0", "cuda-emulation:", "cuda-emulation:-1", "cuda:1x", "cuda 1"})
    CHECK_THROWS(parse_device(name), Error, std::string("\"") + name + "\" is unknown");
}

std::string taken(const std::string& device, int process) {
  return name(device_of_process(parse_device(device), process));
}

void test_processes_take_gpus_in_turn() {
  setenv("DPA2MD_EMULATED_GPUS", "3", 1);
  const int expected[] = {0, 1, 2, 0, 1, 2, 0};
  for (int p = 0; p < 7; ++p)
    CHECK(taken("cuda-emulation", p) == "cuda-emulation:" + std::to_string(expected[p]));
  CHECK(taken("cuda-emulation:2", 1) == "cuda-emulation:2");
  CHECK(taken("cpu", 1) == "cpu");
  CHECK(gpu_identity(parse_device("cpu")).empty());
  CHECK(gpu_identity(parse_device("cuda-emulation:1")) != gpu_identity(parse_device("cuda-emulation:2")));
  CHECK(gpu_identity(parse_device("cuda-emulation")) == gpu_identity(parse_device("cuda-emulation:0")));
}

void test_numbers_that_do_not_exist() {
  setenv("DPA2MD_EMULATED_GPUS", "3", 1);
  CHECK_THROWS(gpu_identity(parse_device("cuda-emulation:3")), Error,
               "there is no GPU 3: this process sees 3, numbers 0 to 2;");
  setenv("DPA2MD_EMULATED_GPUS", "1", 1);
  CHECK_THROWS(gpu_identity(parse_device("cuda-emulation:1")), Error,
               "there is no GPU 1: this process sees one, number 0;");
}

}  // namespace

int main() {
  test_names();
  test_processes_take_gpus_in_turn();
  test_numbers_that_do_not_exist();
  return check_result();
}
