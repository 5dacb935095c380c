/** A client library. Its methods return the text of the answer. */
interface Client {
    String QUESTION = "Name three colours.";

    String name();

    /** A class of the library, whose JAR has the version in its name. */
    Class<?> library();

    /** With once, there are no tries after the first. */
    String chat(String baseUrl, String token, String model, boolean once) throws Exception;

    String stream(String baseUrl, String token, String model) throws Exception;
}
