// A periodic box cut into domains, each with explicit ghosts, as a parallel program would see it: one engine
// and one thread a domain, and an Exchange that copies rows between them. No MPI.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "engine/exchange.h"
#include "neighbors/neighbors.h"

struct Box {
  dpa2md::Cell cell;
  std::vector<double> x;  // (n, 3)
  std::vector<int> type;  // (n)
  int size() const { return static_cast<int>(type.size()); }
};

// What a remote ghost row stands for.
struct Remote {
  int row;  // here
  int domain, owner_row;
};

struct Domain {
  int natoms = 0, nrows = 0;
  std::vector<int> global;  // (nall) index in the box of every local atom and ghost
  std::vector<double> x;    // (nall, 3), locals first
  std::vector<int> type, row;
  std::vector<Remote> remote;
  dpa2md::Candidates candidates;
};

inline std::array<double, 3> image(const Box& box, int i, const int* shift) {
  std::array<double, 3> p;
  for (int c = 0; c < 3; ++c) {
    p[c] = box.x[3 * i + c];
    for (int a = 0; a < 3; ++a) p[c] += shift[a] * box.cell.h[3 * a + c];
  }
  return p;
}

inline double distance(const double* p, const double* q) {
  return std::sqrt((p[0] - q[0]) * (p[0] - q[0]) + (p[1] - q[1]) * (p[1] - q[1]) +
                   (p[2] - q[2]) * (p[2] - q[2]));
}

// owner[i] is the domain of atom i. Ghosts are all images within rcut of a local atom; `reach` periods
// suffice in every direction. Ghosts of local atoms share their owner's row, every other ghost has a row of
// its own.
inline std::vector<Domain> split(const Box& box, const std::vector<int>& owner, int domains, double rcut,
                                 int reach) {
  std::vector<Domain> out(domains);
  std::vector<int> local(box.size());
  for (int i = 0; i < box.size(); ++i) {
    Domain& d = out[owner[i]];
    local[i] = d.natoms++;
    d.global.push_back(i);
    d.x.insert(d.x.end(), &box.x[3 * i], &box.x[3 * i] + 3);
    d.type.push_back(box.type[i]);
    d.row.push_back(local[i]);
  }
  for (int n = 0; n < domains; ++n) {
    Domain& d = out[n];
    d.nrows = d.natoms;
    for (int i = 0; i < box.size(); ++i) {
      int s[3];
      for (s[0] = -reach; s[0] <= reach; ++s[0])
        for (s[1] = -reach; s[1] <= reach; ++s[1])
          for (s[2] = -reach; s[2] <= reach; ++s[2]) {
            if (owner[i] == n && s[0] == 0 && s[1] == 0 && s[2] == 0) continue;
            const auto p = image(box, i, s);
            bool near = false;
            for (int a = 0; a < d.natoms && !near; ++a) near = distance(&d.x[3 * a], p.data()) <= rcut;
            if (!near) continue;
            d.global.push_back(i);
            d.x.insert(d.x.end(), p.begin(), p.end());
            d.type.push_back(box.type[i]);
            if (owner[i] == n) {
              d.row.push_back(local[i]);
            } else {
              d.row.push_back(d.nrows);
              d.remote.push_back({d.nrows++, owner[i], local[i]});
            }
          }
    }
    d.candidates.first.assign(1, 0);
    d.candidates.shift_vectors.assign(3, 0.0);
    const int nall = static_cast<int>(d.type.size());
    for (int a = 0; a < d.natoms; ++a) {
      for (int b = 0; b < nall; ++b) {
        if (a != b && distance(&d.x[3 * a], &d.x[3 * b]) <= rcut) d.candidates.atom.push_back(b);
      }
      d.candidates.first.push_back(static_cast<std::int64_t>(d.candidates.atom.size()));
    }
    d.candidates.shift.assign(d.candidates.atom.size(), 0);
  }
  return out;
}

struct Abandoned : std::exception {};

// Where the domains' threads meet. A thread that fails calls `abandon`, so that nobody waits for it.
class Meeting {
 public:
  explicit Meeting(int threads) : threads_(threads), rows_(threads) {}

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const std::int64_t round = round_;
    if (++arrived_ == threads_) {
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return round_ != round || abandoned_; });
    }
    if (abandoned_) throw Abandoned();
  }
  void abandon() {
    const std::lock_guard<std::mutex> lock(mutex_);
    abandoned_ = true;
    changed_.notify_all();
  }
  void publish(int domain, void* rows) {
    rows_[domain] = rows;
    wait();
  }
  void* rows(int domain) const { return rows_[domain]; }

 private:
  const int threads_;
  std::vector<void*> rows_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  std::int64_t round_ = 0;
  bool abandoned_ = false;
};

// Every thread writes only rows of its own domain: ghost rows forward, local rows in reverse.
class ThreadExchange : public dpa2md::Exchange {
 public:
  ThreadExchange(const std::vector<Domain>& domains, int mine, Meeting* meeting)
      : domains_(domains), mine_(mine), meeting_(*meeting) {
    std::set<int> sent;
    for (const Domain& d : domains) {
      for (const Remote& r : d.remote) {
        if (r.domain == mine) sent.insert(static_cast<int>(r.owner_row));
      }
    }
    sent_.assign(sent.begin(), sent.end());
  }

  void forward(void* rows, int width, bool single) override {
    ++forwards;
    single ? copy<float>(rows, width) : copy<double>(rows, width);
  }
  void reverse(void* rows, int width, bool single) override {
    ++reverses;
    single ? add<float>(rows, width) : add<double>(rows, width);
  }
  const std::vector<int>& sent_rows() const override { return sent_; }
  int forwards = 0, reverses = 0;

 private:
  template <class T>
  void copy(void* rows, int width) {
    meeting_.publish(mine_, rows);
    for (const Remote& r : domains_[mine_].remote) {
      const T* from = static_cast<const T*>(meeting_.rows(r.domain)) + r.owner_row * width;
      std::copy(from, from + width, static_cast<T*>(rows) + r.row * width);
    }
    meeting_.wait();
  }
  template <class T>
  void add(void* rows, int width) {
    meeting_.publish(mine_, rows);
    for (std::size_t d = 0; d < domains_.size(); ++d) {
      for (const Remote& r : domains_[d].remote) {
        if (r.domain != mine_) continue;
        const T* from = static_cast<const T*>(meeting_.rows(static_cast<int>(d))) + r.row * width;
        T* to = static_cast<T*>(rows) + r.owner_row * width;
        for (int c = 0; c < width; ++c) to[c] += from[c];
      }
    }
    meeting_.wait();
  }

  const std::vector<Domain>& domains_;
  const int mine_;
  Meeting& meeting_;
  std::vector<int> sent_;
};
