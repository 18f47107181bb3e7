import com.thoughtworks.xstream.XStream;
import com.thoughtworks.xstream.security.AnyTypePermission;
import java.lang.reflect.Field;
import org.apache.jmeter.JMeter;
import org.apache.jmeter.save.SaveService;
import org.apache.jmeter.util.JMeterUtils;

/** Starts the JMeter 2.13 of Debian 12, whose test plans the XStream of Debian 12 otherwise refuses: docs/jmeter.md. */
public class DebianJMeter {
    public static void main(String[] arguments) throws Exception {
        String home = System.getProperty("jmeter.home", "/usr/share/jmeter");
        JMeterUtils.setJMeterHome(home);
        JMeterUtils.loadJMeterProperties(home + "/bin/jmeter.properties");
        for (Field field : SaveService.class.getDeclaredFields()) {
            if (XStream.class.isAssignableFrom(field.getType())) {
                field.setAccessible(true);
                ((XStream) field.get(null)).addPermission(AnyTypePermission.ANY);
            }
        }
        new JMeter().start(arguments);
    }
}
