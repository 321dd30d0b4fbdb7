package io.grpc;

/**
 * Stands in for the class of this name in version 0.8.20 of Google's Pub/Sub emulator.
 *
 * <p>That jar has gRPC's core in one version and its API in a newer one, which lacks a method that the core calls when a
 * request is cancelled or too large. There the server fails: a stream that its client has closed goes on taking messages,
 * and a request over the limit is never answered. This class has that method again, beside those the jar's own has.
 */
public final class InternalStatus {
  public static final Metadata.Key<String> MESSAGE_KEY = Status.MESSAGE_KEY;
  public static final Metadata.Key<Status> CODE_KEY = Status.CODE_KEY;

  private InternalStatus() {}

  /** The method of the newer API. */
  public static StatusRuntimeException asRuntimeExceptionWithoutStacktrace(Status status, Metadata trailers) {
    return new StatusRuntimeException(status, trailers);
  }

  /** The method that the core calls; whether there is a stack trace makes no difference to a server. */
  public static StatusRuntimeException asRuntimeException(
      Status status, Metadata trailers, boolean fillInStackTrace) {
    return asRuntimeExceptionWithoutStacktrace(status, trailers);
  }
}
