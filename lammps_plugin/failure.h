// Turns the core's exceptions into text, since LAMMPS stops a run in its own way, and delivers the text.
#pragma once

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <new>
#include <string>
#include <thread>

#include "base/error.h"

namespace dpa2md {

// Runs `work`; returns the error's sentence, or "" if there is none. name_of(atom): the users' name of an
// atom that the core counts from 0.
template <class F, class Name>
std::string failure_of(F&& work, Name&& name_of) {
  try {
    work();
  } catch (const dpa2md::Error& e) {
    return e.atom() < 0 ? e.what() : e.named(name_of(e.atom()), "");
  } catch (const std::bad_alloc&) {
    return "out of memory: use more ranks or fewer atoms.";
  }
  return "";
}

template <class F>
std::string failure_of(F&& work) {
  return failure_of(work, [](int atom) { return "atom " + std::to_string(atom); });
}

// Waits until a rank's output has been read, before it calls MPI_Abort. mpiexec reads output through pipes;
// on an abort it ends all ranks, and unread output is lost (MPICH: one sentence of seven). The kernel reports
// the unread bytes, and MPICH passes on its input before it handles the abort.
inline void deliver_output() {
  using std::chrono::milliseconds;
  std::fflush(nullptr);
  const auto enough = std::chrono::steady_clock::now() + milliseconds(5000);  // perhaps nobody reads
  bool unknown = false;
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat kind;
    if (fstat(stream, &kind) != 0 || S_ISREG(kind.st_mode)) continue;  // closed, or a file: it is there
    if (!S_ISFIFO(kind.st_mode)) {
      unknown = true;
      continue;
    }
    int unread = 0;
    while (ioctl(stream, FIONREAD, &unread) == 0 && unread > 0 && std::chrono::steady_clock::now() < enough)
      std::this_thread::sleep_for(milliseconds(1));
  }
  // A pseudo-terminal or a socket of another launcher can't be asked: time is all there is.
  if (unknown) std::this_thread::sleep_for(milliseconds(200));
}

}  // namespace dpa2md
